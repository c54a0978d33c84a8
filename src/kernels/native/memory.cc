#include "memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <map>
#include <mutex>

#include "napi_args.h"

namespace potluck {
namespace {

constexpr size_t kHugeFrom = size_t(4) << 20;
constexpr size_t kHugePage = size_t(2) << 20;
constexpr int64_t kMostBytes = int64_t(1) << 40;

struct Region {
  size_t bytes;
  uint64_t id;
  int users;
  bool orphan;  // its ArrayBuffer was collected while it was in use
};

std::mutex registry_mutex;
std::map<uintptr_t, Region> registry;  // by first byte
uint64_t next_id = 1;

// The system's: 4 KiB, or 16 or 64 on some Arm. It gives back whole ones, also what lies behind the bytes it is told.
size_t page_bytes() {
  static const size_t bytes = size_t(sysconf(_SC_PAGESIZE));
  return bytes;
}

size_t whole_pages(size_t bytes) { return (bytes + page_bytes() - 1) / page_bytes() * page_bytes(); }

// The caller holds registry_mutex.
std::map<uintptr_t, Region>::iterator find_region(const void* at) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(at);
  auto after = registry.upper_bound(address);
  if (after == registry.begin()) return registry.end();
  auto found = std::prev(after);
  return address < found->first + found->second.bytes ? found : registry.end();
}

// Runs when the ArrayBuffer is collected, or some time after it was released; `hint` is the region's id.
void finalize_region(napi_env, void* data, void* hint) {
  std::lock_guard<std::mutex> lock(registry_mutex);
  auto found = registry.find(reinterpret_cast<uintptr_t>(data));
  if (found == registry.end() || found->second.id != uint64_t(reinterpret_cast<uintptr_t>(hint))) return;
  if (found->second.users > 0) {
    found->second.orphan = true;
    return;
  }
  unmap_pages(data, found->second.bytes);
  registry.erase(found);
}

napi_value allocate(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument;
  int64_t bytes = 0;
  if (napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr) != napi_ok ||
      !read_integer(env, argument, "bytes", 1, kMostBytes, &bytes))
    return nullptr;
  napi_value buffer;
  void* data;
  return create_region(env, size_t(bytes), &buffer, &data) ? buffer : nullptr;
}

// discard(buffer, offset, bytes)
napi_value discard(napi_env env, napi_callback_info info) {
  size_t count = 3;
  napi_value argument[3];
  uint8_t* data = nullptr;
  size_t length = 0;
  int64_t offset = 0, bytes = 0;
  if (napi_get_cb_info(env, info, &count, argument, nullptr, nullptr) != napi_ok ||
      !read_buffer(env, argument[0], "memory", 1, &data, &length) ||
      !read_integer(env, argument[1], "offset", 0, int64_t(length), &offset) ||
      !read_integer(env, argument[2], "bytes", 0, int64_t(length) - offset, &bytes))
    return nullptr;
  std::lock_guard<std::mutex> lock(registry_mutex);
  if (find_region(data) == registry.end()) {
    throw_range(env, "memory", "does not come from allocate()");
    return nullptr;
  }
  discard_pages(data + offset, size_t(bytes));
  return nullptr;
}

napi_value release(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument;
  uint8_t* data = nullptr;
  size_t bytes = 0;
  if (napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr) != napi_ok ||
      !read_buffer(env, argument, "memory", 1, &data, &bytes))
    return nullptr;
  std::lock_guard<std::mutex> lock(registry_mutex);
  auto found = registry.find(reinterpret_cast<uintptr_t>(data));
  if (found == registry.end()) {
    throw_range(env, "memory", "does not come from allocate()");
    return nullptr;
  }
  if (found->second.users > 0) {
    throw_range(env, "memory", "is in use by an open model or a read");
    return nullptr;
  }
  if (napi_detach_arraybuffer(env, argument) != napi_ok) {
    throw_range(env, "memory", "cannot be detached");
    return nullptr;
  }
  unmap_pages(data, found->second.bytes);
  registry.erase(found);
  return nullptr;
}

}  // namespace

bool hold_memory(const void* at) {
  std::lock_guard<std::mutex> lock(registry_mutex);
  auto found = find_region(at);
  if (found == registry.end()) return false;
  found->second.users++;
  return true;
}

void drop_memory(const void* at) {
  std::lock_guard<std::mutex> lock(registry_mutex);
  auto found = find_region(at);
  if (found == registry.end() || found->second.users == 0) return;
  if (--found->second.users > 0 || !found->second.orphan) return;
  unmap_pages(reinterpret_cast<void*>(found->first), found->second.bytes);
  registry.erase(found);
}

void* map_pages(size_t bytes, bool huge) {
  const size_t length = whole_pages(bytes);
  huge = huge && length >= kHugeFrom;
  // A huge page must start at a multiple of its size: map more, then give both ends back.
  const size_t mapped = huge ? length + kHugePage : length;
  void* at = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) return nullptr;
  if (!huge) return at;
  char* start = static_cast<char*>(at);
  const size_t head = (kHugePage - reinterpret_cast<uintptr_t>(at) % kHugePage) % kHugePage;
  if (head > 0) munmap(start, head);
  munmap(start + head + length, kHugePage - head);
#ifdef MADV_HUGEPAGE
  madvise(start + head, length, MADV_HUGEPAGE);  // a wish: small pages do as well
#endif
  return start + head;
}

void unmap_pages(void* at, size_t bytes) { munmap(at, whole_pages(bytes)); }

void discard_pages(void* at, size_t bytes) {
  const uintptr_t page = page_bytes(), start = reinterpret_cast<uintptr_t>(at);
  const uintptr_t from = (start + page - 1) / page * page, to = (start + bytes) / page * page;
  if (to <= from) return;
#ifdef __linux__
  madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED);
#else
  // Elsewhere MADV_DONTNEED keeps the pages: a fresh mapping in their place does not. Untested.
  mmap(reinterpret_cast<void*>(from), to - from, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
#endif
}

bool create_region(napi_env env, size_t bytes, napi_value* buffer, void** data) {
  void* at = map_pages(bytes, true);
  if (at == nullptr) {
    throw_range(env, "allocate", "the system has not that much memory");
    return false;
  }
  uint64_t id;
  {
    std::lock_guard<std::mutex> lock(registry_mutex);
    id = next_id++;
    registry[reinterpret_cast<uintptr_t>(at)] = Region{bytes, id, 0, false};
  }
  // When this fails V8 may still run the finalizer; the id makes a second unmap impossible.
  if (napi_create_external_arraybuffer(env, at, bytes, finalize_region, reinterpret_cast<void*>(uintptr_t(id)),
                                       buffer) != napi_ok) {
    finalize_region(env, at, reinterpret_cast<void*>(uintptr_t(id)));
    throw_range(env, "allocate", "this Node.js does not allow external memory");
    return false;
  }
  *data = at;
  return true;
}

bool register_memory(napi_env env, napi_value exports) {
  return set_function(env, exports, "allocate", allocate) && set_function(env, exports, "discard", discard) &&
         set_function(env, exports, "release", release);
}

}  // namespace potluck
