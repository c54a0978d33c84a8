#include "disk_io.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <system_error>

#include "../../kernels/native/memory.h"
#include "../../kernels/native/napi_args.h"
#include "crc32c.h"
#include "tile_file.h"
#include "tile_reader.h"

namespace potluck {
namespace {

constexpr int64_t kMostThreads = 64;
constexpr int64_t kMostFileOffset = int64_t(1) << 52;
constexpr int64_t kMostTileBytes = int64_t(1) << 30;
constexpr size_t kMostParts = 4096;
constexpr int kMostReads = 4096;
constexpr size_t kMostPathBytes = 4096;

// Marks of our externals, so that no other native object is taken for one.
constexpr napi_type_tag kReaderTag = {0x706f746c75636b01, 0x7265616465720001};
constexpr napi_type_tag kFileTag = {0x706f746c75636b01, 0x66696c6500000001};

// A reader as JavaScript has it. Everything here belongs to the JavaScript thread; only `pool` has threads.
struct ReaderHandle {
  std::unique_ptr<TileReader> pool;  // null once closed
  napi_threadsafe_function notify = nullptr;
  napi_ref self = nullptr;  // strong while reads are under way
  int reads = 0;
};

struct FileHandle {
  std::shared_ptr<TileFile> file;  // null once closed; reads under way keep their own
};

// What a read needs besides the read itself.
struct ReadOwner {
  TileRead read;
  ReaderHandle* reader;
  napi_ref memory;  // keeps the ArrayBuffer from being collected
  napi_ref done;
  void* held;
};

// `env` is null when the environment is gone; its references are then gone with it.
void destroy_read(napi_env env, ReadOwner* owner) {
  drop_memory(owner->held);
  if (env != nullptr) {
    napi_delete_reference(env, owner->memory);
    napi_delete_reference(env, owner->done);
  }
  delete owner;
}

bool get_arguments(napi_env env, napi_callback_info info, size_t wanted, napi_value* arguments) {
  return napi_get_cb_info(env, info, &wanted, arguments, nullptr, nullptr) == napi_ok;
}

template <typename Handle>
bool read_handle(napi_env env, napi_value value, const char* name, const napi_type_tag& tag, Handle** out) {
  napi_valuetype type;
  bool ours = false;
  if (napi_typeof(env, value, &type) != napi_ok || type != napi_external ||
      napi_check_object_type_tag(env, value, &tag, &ours) != napi_ok || !ours) {
    throw_range(env, name, "is not what this addon gave out");
    return false;
  }
  return napi_get_value_external(env, value, reinterpret_cast<void**>(out)) == napi_ok;
}

void set_number(napi_env env, napi_value object, const char* name, double number) {
  napi_value value;
  napi_create_double(env, number, &value);
  napi_set_named_property(env, object, name, value);
}

void set_string(napi_env env, napi_value object, const char* name, const std::string& text) {
  napi_value value;
  napi_create_string_utf8(env, text.data(), text.size(), &value);
  napi_set_named_property(env, object, name, value);
}

// {kind, part, message, errno?, expected?, actual?}, or null where the read went well.
napi_value read_error(napi_env env, const TileRead& read) {
  napi_value error;
  if (read.result == TileRead::Result::ok) {
    napi_get_null(env, &error);
    return error;
  }
  const TilePart& part = read.parts[read.part];
  napi_create_object(env, &error);
  set_number(env, error, "part", double(read.part));
  if (read.result == TileRead::Result::system_error) {
    set_string(env, error, "kind", "errno");
    set_string(env, error, "message", std::error_code(read.system_error, std::system_category()).message());
    set_number(env, error, "errno", read.system_error);
  } else if (read.result == TileRead::Result::short_read) {
    set_string(env, error, "kind", "short");
    set_string(env, error, "message", "the file ends inside the tile");
    set_number(env, error, "expected", double(part.bytes));
    set_number(env, error, "actual", double(read.bytes_read));
  } else {
    set_string(env, error, "kind", "crc");
    set_string(env, error, "message", "the CRC-32C is wrong");
    set_number(env, error, "expected", part.crc32c);
    set_number(env, error, "actual", read.actual_crc);
  }
  return error;
}

// On a thread of the reader.
void hand_over(void* context, TileRead* read) {
  napi_call_threadsafe_function(static_cast<ReaderHandle*>(context)->notify, read->owner, napi_tsfn_nonblocking);
}

// On the JavaScript thread: calls done(error, microseconds, cpuMicroseconds).
void call_done(napi_env env, napi_value, void*, void* data) {
  auto* owner = static_cast<ReadOwner*>(data);
  if (env == nullptr) {
    destroy_read(nullptr, owner);
    return;
  }
  ReaderHandle* reader = owner->reader;
  napi_value arguments[3];
  arguments[0] = read_error(env, owner->read);
  napi_create_double(env, owner->read.microseconds, &arguments[1]);
  napi_create_double(env, owner->read.cpu_microseconds, &arguments[2]);
  napi_value done = nullptr;
  napi_get_reference_value(env, owner->done, &done);
  destroy_read(env, owner);
  if (--reader->reads == 0) {
    napi_unref_threadsafe_function(env, reader->notify);
    napi_reference_unref(env, reader->self, nullptr);
  }
  napi_value undefined;
  napi_get_undefined(env, &undefined);
  if (done != nullptr) napi_call_function(env, undefined, done, 3, arguments, nullptr);
}

// Joins the threads. Reads that none of them finished are dropped without a call of `done`.
void shut_down(napi_env env, ReaderHandle* reader) {
  if (!reader->pool) return;
  for (TileRead* read : reader->pool->stop()) destroy_read(env, static_cast<ReadOwner*>(read->owner));
  reader->pool.reset();
  napi_release_threadsafe_function(reader->notify, napi_tsfn_abort);
}

// The environment ends while the reader is open.
void end_with_environment(void* data) { shut_down(nullptr, static_cast<ReaderHandle*>(data)); }

void finalize_reader(napi_env env, void* data, void*) {
  auto* reader = static_cast<ReaderHandle*>(data);
  if (reader->pool) {
    napi_remove_env_cleanup_hook(env, end_with_environment, reader);
    shut_down(env, reader);
  }
  if (reader->self != nullptr) napi_delete_reference(env, reader->self);
  delete reader;
}

// createReader(threads)
napi_value create_reader(napi_env env, napi_callback_info info) {
  napi_value argument;
  int64_t threads = 0;
  if (!get_arguments(env, info, 1, &argument) ||
      !read_integer(env, argument, "threads", 1, kMostThreads, &threads))
    return nullptr;
  auto* reader = new ReaderHandle;
  napi_value name;
  napi_value external;
  napi_create_string_utf8(env, "potluck disk reader", NAPI_AUTO_LENGTH, &name);
  if (napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, nullptr, call_done,
                                      &reader->notify) != napi_ok) {
    delete reader;
    throw_range(env, "createReader", "no queue to the JavaScript thread");
    return nullptr;
  }
  napi_unref_threadsafe_function(env, reader->notify);
  reader->pool = std::make_unique<TileReader>(hand_over, reader);
  napi_add_env_cleanup_hook(env, end_with_environment, reader);
  if (napi_create_external(env, reader, finalize_reader, nullptr, &external) != napi_ok) {
    finalize_reader(env, reader, nullptr);
    throw_range(env, "createReader", "out of memory");
    return nullptr;
  }
  napi_type_tag_object(env, external, &kReaderTag);
  napi_create_reference(env, external, 0, &reader->self);
  if (!reader->pool->start(int(threads))) {
    throw_range(env, "threads", "the system has no more threads");
    return nullptr;
  }
  return external;
}

// closeReader(reader): not while reads are under way.
napi_value close_reader(napi_env env, napi_callback_info info) {
  napi_value argument;
  ReaderHandle* reader;
  if (!get_arguments(env, info, 1, &argument) || !read_handle(env, argument, "reader", kReaderTag, &reader))
    return nullptr;
  if (reader->reads > 0) {
    throw_range(env, "reader", "has reads under way: wait for them first");
    return nullptr;
  }
  if (!reader->pool) return nullptr;
  napi_remove_env_cleanup_hook(env, end_with_environment, reader);
  shut_down(env, reader);
  return nullptr;
}

void finalize_file(napi_env, void* data, void*) { delete static_cast<FileHandle*>(data); }

// Throws an Error with the system's error number as `errno`.
void throw_system_error(napi_env env, int number) {
  const std::string text = std::error_code(number, std::system_category()).message();
  napi_value message;
  napi_value error;
  napi_create_string_utf8(env, text.data(), text.size(), &message);
  napi_create_error(env, nullptr, message, &error);
  set_number(env, error, "errno", number);
  napi_throw(env, error);
}

// openFile(path, wantDirect) -> {file, direct, how}
napi_value open_file(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  std::string path;
  bool want_direct = false;
  if (!get_arguments(env, info, 2, arguments) || !read_string(env, arguments[0], "path", kMostPathBytes, &path) ||
      !read_bool(env, arguments[1], "wantDirect", &want_direct))
    return nullptr;
  if (path.find('\0') != std::string::npos) {
    throw_range(env, "path", "has a zero byte");
    return nullptr;
  }
  int error = 0;
  auto file = TileFile::open(path, want_direct, &error);
  if (!file) {
    throw_system_error(env, error);
    return nullptr;
  }
  napi_value result;
  napi_value external;
  napi_value direct;
  auto* handle = new FileHandle{file};
  if (napi_create_external(env, handle, finalize_file, nullptr, &external) != napi_ok) {
    delete handle;
    throw_range(env, "openFile", "out of memory");
    return nullptr;
  }
  napi_type_tag_object(env, external, &kFileTag);
  napi_create_object(env, &result);
  napi_set_named_property(env, result, "file", external);
  napi_get_boolean(env, file->direct(), &direct);
  napi_set_named_property(env, result, "direct", direct);
  set_string(env, result, "how", file->how());
  return result;
}

// closeFile(file): reads under way go on; the file is closed after the last.
napi_value close_file(napi_env env, napi_callback_info info) {
  napi_value argument;
  FileHandle* handle;
  if (!get_arguments(env, info, 1, &argument) || !read_handle(env, argument, "file", kFileTag, &handle)) return nullptr;
  handle->file.reset();
  return nullptr;
}

// readCached(file, offset, target): boolean
napi_value read_cached(napi_env env, napi_callback_info info) {
  napi_value argument[3], value;
  FileHandle* handle;
  int64_t offset = 0;
  void* to;
  size_t bytes;
  if (!get_arguments(env, info, 3, argument) || !read_handle(env, argument[0], "file", kFileTag, &handle) ||
      !read_integer(env, argument[1], "offset", 0, kMostFileOffset, &offset) ||
      !read_typed(env, argument[2], "target", napi_uint8_array, &to, &bytes))
    return nullptr;
  if (!handle->file) {
    throw_range(env, "file", "is closed");
    return nullptr;
  }
  napi_get_boolean(env, bytes > 0 && handle->file->read_cached(uint64_t(offset), bytes, static_cast<uint8_t*>(to)), &value);
  return value;
}

bool is_aligned(napi_env env, const char* name, uint64_t value) {
  if (value % kDiskAlignment == 0) return true;
  throw_range(env, name, "is not a multiple of 4096");
  return false;
}

// Arguments of readRun, checked.
struct ReadArguments {
  ReaderHandle* reader;
  FileHandle* file;
  int64_t file_offset, memory_offset;
  std::vector<TilePart> parts;
  size_t bytes = 0;
  uint8_t* memory;
  napi_value memory_value, done_value;
};

// tiles: for each tile its bytes, and its CRC-32C or -1 for no check.
bool read_parts(napi_env env, napi_value value, ReadArguments* out) {
  void* data;
  size_t words;
  if (!read_typed(env, value, "tiles", napi_float64_array, &data, &words)) return false;
  if (words == 0 || words % 2 != 0 || words / 2 > kMostParts) {
    throw_range(env, "tiles", "is not a list of bytes and CRC-32C");
    return false;
  }
  const double* numbers = static_cast<const double*>(data);
  for (size_t i = 0; i < words; i += 2) {
    const double bytes = numbers[i], crc = numbers[i + 1];
    if (!(bytes >= double(kDiskAlignment) && bytes <= double(kMostTileBytes)) || bytes != std::floor(bytes)) {
      throw_range(env, "tiles", "has a tile without bytes, or with over a GiB");
      return false;
    }
    if (!is_aligned(env, "bytes of a tile", uint64_t(bytes))) return false;
    if (!(crc >= -1 && crc <= double(std::numeric_limits<uint32_t>::max())) || crc != std::floor(crc)) {
      throw_range(env, "crc32c", "is not from 0 to 2^32 - 1");
      return false;
    }
    out->parts.push_back(TilePart{size_t(bytes), crc < 0 ? 0 : uint32_t(crc), crc >= 0});
    out->bytes += size_t(bytes);
  }
  return true;
}

bool read_arguments(napi_env env, napi_callback_info info, ReadArguments* out) {
  napi_value a[7];
  if (!get_arguments(env, info, 7, a)) return false;
  size_t memory_bytes = 0;
  napi_valuetype done_type;
  if (!read_handle(env, a[0], "reader", kReaderTag, &out->reader) || !read_handle(env, a[1], "file", kFileTag, &out->file) ||
      !read_integer(env, a[2], "fileOffset", 0, kMostFileOffset, &out->file_offset) ||
      !is_aligned(env, "fileOffset", uint64_t(out->file_offset)) || !read_parts(env, a[5], out) ||
      !read_buffer(env, a[3], "memory", out->bytes, &out->memory, &memory_bytes) ||
      !read_integer(env, a[4], "memoryOffset", 0, int64_t(memory_bytes) - int64_t(out->bytes), &out->memory_offset) ||
      !is_aligned(env, "memoryOffset", uint64_t(out->memory_offset)) ||
      !is_aligned(env, "memory", reinterpret_cast<uintptr_t>(out->memory)))
    return false;
  if (napi_typeof(env, a[6], &done_type) != napi_ok || done_type != napi_function) {
    throw_range(env, "done", "is not a function");
    return false;
  }
  out->memory_value = a[3];
  out->done_value = a[6];
  return true;
}

// readRun(reader, file, fileOffset, memory, memoryOffset, tiles, done)
napi_value read_run(napi_env env, napi_callback_info info) {
  ReadArguments a;
  if (!read_arguments(env, info, &a)) return nullptr;
  const char* refusal = !a.reader->pool                   ? "the reader is closed"
                        : !a.file->file                   ? "the file is closed"
                        : a.reader->reads >= kMostReads   ? "too many reads are under way"
                        : !hold_memory(a.memory)          ? "the memory does not come from allocate()"
                                                          : nullptr;
  if (refusal != nullptr) {
    throw_range(env, "readRun", refusal);
    return nullptr;
  }
  auto* owner = new ReadOwner{};
  owner->reader = a.reader;
  owner->held = a.memory;
  napi_create_reference(env, a.memory_value, 1, &owner->memory);
  napi_create_reference(env, a.done_value, 1, &owner->done);
  TileRead& read = owner->read;
  read.owner = owner;
  read.file = a.file->file;
  read.file_offset = uint64_t(a.file_offset);
  read.parts = std::move(a.parts);
  read.bytes = a.bytes;
  read.to = a.memory + a.memory_offset;
  if (a.reader->reads++ == 0) {
    napi_ref_threadsafe_function(env, a.reader->notify);
    napi_reference_ref(env, a.reader->self, nullptr);
  }
  a.reader->pool->submit(&read);
  return nullptr;
}

const Crc32cVariant* find_variant(const std::string& name) {
  const Crc32cVariant* variants;
  const size_t count = crc32c_variants(&variants);
  for (size_t i = 0; i < count; i++)
    if (name == variants[i].name) return &variants[i];
  return nullptr;
}

bool is_undefined(napi_env env, napi_value value) {
  napi_valuetype type;
  return napi_typeof(env, value, &type) == napi_ok && type == napi_undefined;
}

// crc32c(bytes, seed?, variant?)
napi_value crc32c_call(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  void* data = nullptr;
  size_t bytes = 0;
  int64_t seed = 0;
  Crc32cFunction run = crc32c;
  if (!get_arguments(env, info, 3, arguments) ||
      !read_typed(env, arguments[0], "bytes", napi_uint8_array, &data, &bytes))
    return nullptr;
  if (!is_undefined(env, arguments[1]) &&
      !read_integer(env, arguments[1], "seed", 0, std::numeric_limits<uint32_t>::max(), &seed))
    return nullptr;
  if (!is_undefined(env, arguments[2])) {
    std::string name;
    if (!read_string(env, arguments[2], "variant", 32, &name)) return nullptr;
    const Crc32cVariant* variant = find_variant(name);
    if (variant == nullptr) {
      throw_range(env, "variant", "is not one that this processor has");
      return nullptr;
    }
    run = variant->run;
  }
  napi_value result;
  napi_create_uint32(env, run(uint32_t(seed), static_cast<const uint8_t*>(data), bytes), &result);
  return result;
}

// crc32cVariants() -> names
napi_value crc32c_names(napi_env env, napi_callback_info) {
  const Crc32cVariant* variants;
  const size_t count = crc32c_variants(&variants);
  napi_value names;
  napi_create_array_with_length(env, count, &names);
  for (size_t i = 0; i < count; i++) {
    napi_value name;
    napi_create_string_utf8(env, variants[i].name, NAPI_AUTO_LENGTH, &name);
    napi_set_element(env, names, uint32_t(i), name);
  }
  return names;
}

}  // namespace

bool register_disk_io(napi_env env, napi_value exports) {
  return set_function(env, exports, "createReader", create_reader) &&
         set_function(env, exports, "closeReader", close_reader) &&
         set_function(env, exports, "openFile", open_file) && set_function(env, exports, "closeFile", close_file) &&
         set_function(env, exports, "readRun", read_run) && set_function(env, exports, "readCached", read_cached) && set_function(env, exports, "crc32c", crc32c_call) &&
         set_function(env, exports, "crc32cVariants", crc32c_names);
}

}  // namespace potluck
