#include "test_calls.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "dispatch.h"
#include "napi_args.h"
#include "rope_table.h"
#include "tile_shape.h"

namespace potluck {
namespace {

constexpr int64_t kMost = 1 << 24;

// Reads the arguments of one call in order; after the first that is wrong everything else fails too.
class Arguments {
 public:
  Arguments(napi_env env, napi_callback_info info) : env_(env) {
    size_t count = kCount;
    ok = napi_get_cb_info(env, info, &count, values_, nullptr, nullptr) == napi_ok;
    std::string name;
    if (ok) ok = read_string(env, values_[at_++], "kernel", 64, &name);
    kernels = ok ? select_kernels(env, name) : nullptr;
    ok = kernels != nullptr;
  }

  int64_t integer(int64_t low, int64_t high) {
    int64_t out = 0;
    if (ok) ok = read_integer(env_, values_[at_++], "integer", low, high, &out);
    return out;
  }
  float number() {
    double out = 0;
    if (ok) ok = read_double(env_, values_[at_++], "number", &out);
    return float(out);
  }
  // A typed array of at least `least` elements.
  template <typename T>
  T* array(napi_typedarray_type type, size_t least, size_t* count) {
    void* data = nullptr;
    *count = 0;
    if (ok) ok = read_typed(env_, values_[at_++], "array", type, &data, count);
    if (!ok) return nullptr;
    if (*count < least || *count > size_t(kMost)) {
      throw_range(env_, "array", "has not the right length");
      ok = false;
    }
    return static_cast<T*>(data);
  }
  float* floats(size_t least, size_t* count) { return array<float>(napi_float32_array, least, count); }

  bool ok = false;
  const Kernels* kernels = nullptr;

 private:
  static constexpr size_t kCount = 12;
  napi_env env_;
  napi_value values_[kCount];
  size_t at_ = 0;
};

// testW4(kernel, panel: Uint8Array, blocks, columns, x: Float32Array [tokens, columns], tokens, bits (8 or 4), out:
// Float32Array [tokens, blocks * 16]); x is quantized by the reference.
napi_value test_w4(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  size_t n;
  uint8_t* panel = a.array<uint8_t>(napi_uint8_array, 0, &n);
  const int64_t blocks = a.integer(0, 4096), columns = a.integer(0, 1 << 20);
  if (a.ok && (columns % 32 != 0 || int64_t(n) < blocks * (columns / 32) * 288)) {
    throw_range(env, "panel", "has not the right size");
    return nullptr;
  }
  size_t x_count, out_count;
  float* x = a.floats(0, &x_count);
  const int64_t tokens = a.integer(0, kTokenChunk), bits = a.integer(4, 8);
  float* out = a.floats(size_t(tokens * blocks * 16), &out_count);
  if (!a.ok) return nullptr;
  if (x_count < size_t(tokens * columns)) {
    throw_range(env, "x", "is too short");
    return nullptr;
  }
  const size_t stride = quantized_row_bytes(size_t(columns));
  std::vector<uint8_t> memory(stride * size_t(tokens) + 64);
  uint8_t* base = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
  for (int64_t t = 0; t < tokens; t++) {
    uint8_t* row = base + size_t(t) * stride;
    float* scale = reinterpret_cast<float*>(row + columns);
    const auto quantize = bits == 4 ? kReferenceKernels.quantize4 : kReferenceKernels.quantize8;
    quantize(x + t * columns, int(columns / 32), reinterpret_cast<int8_t*>(row), scale,
             reinterpret_cast<int32_t*>(scale + columns / 32));
  }
  const std::vector<float> a4(size_t(columns / 32 + kBlockGroups - 1) / kBlockGroups, bits == 4 ? 1.0f : 0.0f);
  const QuantizedRows rows{base, stride, size_t(columns), a4.data()};
  a.kernels->w4_matmul(panel, int(blocks), &rows, int(tokens), out, size_t(blocks * 16));
  return nullptr;
}

// testBf16(kernel, panel, blocks, columns, x, tokens, out), shapes as testW4.
napi_value test_bf16(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  size_t n, x_count, out_count;
  uint8_t* panel = a.array<uint8_t>(napi_uint8_array, 0, &n);
  const int64_t blocks = a.integer(0, 4096), columns = a.integer(0, 1 << 20);
  float* x = a.floats(0, &x_count);
  const int64_t tokens = a.integer(0, kTokenChunk);
  float* out = a.floats(size_t(tokens * blocks * 16), &out_count);
  if (!a.ok) return nullptr;
  if (columns % 32 != 0 || int64_t(n) < blocks * columns * 32 || x_count < size_t(tokens * columns)) {
    throw_range(env, "panel or x", "has not the right size");
    return nullptr;
  }
  a.kernels->bf16_matmul(panel, int(blocks), int(columns), x, size_t(columns), int(tokens), out, size_t(blocks * 16));
  return nullptr;
}

// testQuantize(kernel, x [groups * 32], bits (8 or 4), q: Int8Array, scale [groups], bias: Int32Array [groups])
napi_value test_quantize(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  size_t n, any;
  float* x = a.floats(0, &n);
  const int64_t bits = a.integer(4, 8);
  int8_t* q = a.array<int8_t>(napi_int8_array, n, &any);
  float* scale = a.floats(n / 32, &any);
  int32_t* bias = a.array<int32_t>(napi_int32_array, n / 32, &any);
  if (!a.ok) return nullptr;
  (bits == 4 ? a.kernels->quantize4 : a.kernels->quantize8)(x, int(n / 32), q, scale, bias);
  return nullptr;
}

// testHadamard(kernel, x [groups * 32]): in place.
napi_value test_hadamard(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  size_t n;
  float* x = a.floats(0, &n);
  if (a.ok) a.kernels->hadamard(x, int(n / 32));
  return nullptr;
}

// testRmsnorm(kernel, x [n], weight [n], epsilon, y [round_up(n, 32)])
napi_value test_rmsnorm(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  size_t n, any;
  float* x = a.floats(1, &n);
  float* weight = a.floats(n, &any);
  const float epsilon = a.number();
  float* y = a.floats(size_t(round_up(int64_t(n), 32)), &any);
  if (!a.ok) return nullptr;
  a.kernels->rmsnorm(x, weight, int(n), epsilon, y);
  return nullptr;
}

// testRope(kernel, x [2 * half], position, frequencies [half], scale): rotates x in place.
napi_value test_rope(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  size_t n, half;
  float* x = a.floats(2, &n);
  const int64_t position = a.integer(0, kMost);
  float* frequencies = a.floats(n / 2, &half);
  const float scale = a.number();
  if (!a.ok) return nullptr;
  std::vector<float> c(n / 2), s(n / 2);
  rope_row(int(position), frequencies, int(n / 2), 1.0f, c.data(), s.data());
  a.kernels->rope(x, c.data(), s.data(), int(n / 2), scale);
  return nullptr;
}

// testExp(kernel, x [n], y [n])
napi_value test_exp(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  size_t n, any;
  float* x = a.floats(0, &n);
  float* y = a.floats(n, &any);
  if (!a.ok) return nullptr;
  a.kernels->exp(x, int(n), y);
  return nullptr;
}

// testSilu(kernel, gate [n], up [n], h [n])
napi_value test_silu(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  size_t n, any;
  float* gate = a.floats(0, &n);
  float* up = a.floats(n, &any);
  float* h = a.floats(n, &any);
  if (!a.ok) return nullptr;
  a.kernels->silu_mul(gate, up, int(n), h);
  return nullptr;
}

// testGelu(kernel, gate [n], up [n], h [n])
napi_value test_gelu(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  size_t n, any;
  float* gate = a.floats(0, &n);
  float* up = a.floats(n, &any);
  float* h = a.floats(n, &any);
  if (!a.ok) return nullptr;
  a.kernels->gelu_mul(gate, up, int(n), h);
  return nullptr;
}

// testSoftCap(kernel, x [n], cap): x in place
napi_value test_soft_cap(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  size_t n;
  float* x = a.floats(0, &n);
  const float cap = a.number();
  if (!a.ok) return nullptr;
  a.kernels->soft_cap(x, int(n), cap);
  return nullptr;
}

// testFixed(kernel, v [n], scale [n], limit, partial: Int32Array [n]): saturated
napi_value test_fixed(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  size_t n, any;
  float* v = a.floats(0, &n);
  float* scale = a.floats(n, &any);
  const float limit = a.number();
  int32_t* partial = a.array<int32_t>(napi_int32_array, n, &any);
  if (!a.ok) return nullptr;
  napi_value result = nullptr;
  napi_create_double(env, double(a.kernels->add_fixed(v, scale, int(n), limit, partial)), &result);
  return result;
}

// testResidual(kernel, residual [n or more], partial: Int32Array [n], inverse [n])
napi_value test_residual(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  size_t n = 0, room = 0, any;
  float* residual = a.floats(0, &room);
  int32_t* partial = a.array<int32_t>(napi_int32_array, 0, &n);
  float* inverse = a.floats(n, &any);
  if (a.ok && room < n) throw_range(env, "residual", "is shorter than partial");
  a.ok = a.ok && room >= n;
  if (!a.ok) return nullptr;
  a.kernels->add_residual(residual, partial, inverse, int(n));
  return nullptr;
}

// testStoreKv(kernel, planes (1 or 2), key [headDim], value [headDim], at, page: Uint8Array): stores into the page.
napi_value test_store_kv(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  size_t n, any;
  const int64_t planes = a.integer(1, 2);
  float* key = a.floats(1, &n);
  float* value = a.floats(n, &any);
  const int64_t at = a.integer(0, kPage - 1);
  const NibbleKv kv{int(n), int(planes)};
  uint8_t* page = a.array<uint8_t>(napi_uint8_array, kv.bytes(), &any);
  if (a.ok && n > 1024) {
    throw_range(env, "key", "is too long");
    return nullptr;
  }
  if (!a.ok) return nullptr;
  a.kernels->store_key(&kv, key, int(at), page);
  a.kernels->store_value(&kv, value, int(at), page);
  return nullptr;
}

// testAttention(kernel, format (4, 8, 16 or 32 bits), q [heads, headDim], heads, headDim, kv: Uint8Array [pages, bytes of a
// page], pages: Int32Array, first, positions, softCap, out [heads, headDim])
napi_value test_attention(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  size_t n, kv_bytes, page_count, any;
  const int64_t format = a.integer(4, 32);
  float* q = a.floats(0, &n);
  const int64_t heads = a.integer(1, 64), dim = a.integer(2, 1024);
  uint8_t* kv = a.array<uint8_t>(napi_uint8_array, 0, &kv_bytes);
  int32_t* pages = a.array<int32_t>(napi_int32_array, 1, &page_count);
  const int64_t positions = a.integer(1, std::min(int64_t(page_count) * kPage, kMost)), first = a.integer(0, positions - 1);
  const float soft_cap = a.number();
  float* out = a.floats(size_t(heads * dim), &any);
  if (!a.ok) return nullptr;
  const NibbleKv nibbles{int(dim), int(format / 4)};
  const size_t page_bytes = format <= 8 ? nibbles.bytes() : size_t(dim) * 2 * kPage * size_t(format / 8);
  bool inside = n >= size_t(heads * dim) && (format == 4 || format == 8 || format == 16 || format == 32);
  for (size_t i = 0; i < page_count; i++) inside = inside && pages[i] >= 0 && (size_t(pages[i]) + 1) * page_bytes <= kv_bytes;
  if (!inside) {
    throw_range(env, "format, q or pages", "is out of range");
    return nullptr;
  }
  std::vector<uint8_t> store(kv, kv + kv_bytes), queries(size_t(heads) * quantized_row_bytes(size_t(round_up(dim, 32))) + 64);
  store.resize(kv_bytes + 128);  // loads may read behind the last page
  std::vector<float> scores(kHeadsAtOnce * kStretch), running(size_t(heads * kRunning));
  AttentionArgs args{};
  args.q = q;
  args.heads = int(heads);
  args.head_dim = int(dim);
  args.kv = store.data();
  args.page_bytes = page_bytes;
  args.pages = pages;
  args.first = int(first);
  args.positions = int(positions);
  args.soft_cap = soft_cap;
  args.planes = int(format / 4);
  args.scores = scores.data();
  args.running = running.data();
  args.queries = queries.data();
  args.out = out;
  (format <= 8    ? a.kernels->attention_nibbles
   : format == 16 ? a.kernels->attention_half
                  : a.kernels->attention_float)(&args);
  return nullptr;
}

}  // namespace

bool register_test_calls(napi_env env, napi_value exports) {
  return set_function(env, exports, "testW4", test_w4) && set_function(env, exports, "testBf16", test_bf16) &&
         set_function(env, exports, "testQuantize", test_quantize) &&
         set_function(env, exports, "testRmsnorm", test_rmsnorm) && set_function(env, exports, "testRope", test_rope) &&
         set_function(env, exports, "testExp", test_exp) && set_function(env, exports, "testSilu", test_silu) &&
         set_function(env, exports, "testGelu", test_gelu) &&
         set_function(env, exports, "testSoftCap", test_soft_cap) &&
         set_function(env, exports, "testFixed", test_fixed) &&
         set_function(env, exports, "testResidual", test_residual) &&
         set_function(env, exports, "testHadamard", test_hadamard) &&
         set_function(env, exports, "testStoreKv", test_store_kv) &&
         set_function(env, exports, "testAttention", test_attention);
}

}  // namespace potluck
