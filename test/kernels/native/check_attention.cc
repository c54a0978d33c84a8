// Storing of keys and values, and attention over pages of them.
#include "checks.h"
#include "inputs.h"

namespace potluck {
namespace {

constexpr int kPages = 13;
constexpr int kHeadDims[] = {2, 6, 14, 16, 18, 20, 32, 34, 40, 64, 80, 96, 112, 128, 130};

struct Look {
  int positions, first;
  float cap;
};
constexpr Look kLooks[] = {{1, 0, 0},  {2, 1, 0},   {7, 3, 0},  {15, 0, 3},   {16, 7, 0},    {17, 16, 0},
                           {31, 0, 0}, {32, 31, 0}, {33, 2, 0}, {64, 40, 5},  {97, 33, 0.5f}, {192, 31, 0},
                           {129, 128, 0}, {385, 130, 0}};

void check_store(Checks& checks, Random& random, int planes, const Fenced<float>& head, const std::string& what) {
  const int dim = int(head.size());
  const NibbleKv kv{dim, planes};
  const int at = random.below(kPage);
  const Fenced<uint8_t> page(kv.bytes());
  fill_bytes(random, page.data(), page.size());  // the neighbours
  const std::string where = text("head_dim %d, planes %d, at %d, %s", dim, planes, at, what.c_str());
  checks.compare("store_key", where, {{Kind::bytes, kv.bytes(), page.data()}},
                 [&](const Kernels& k, const std::vector<void*>& out) {
                   k.store_key(&kv, head.data(), at, static_cast<uint8_t*>(out[0]));
                   return 0;
                 });
  checks.compare("store_value", where, {{Kind::bytes, kv.bytes(), page.data()}},
                 [&](const Kernels& k, const std::vector<void*>& out) {
                   k.store_value(&kv, head.data(), at, static_cast<uint8_t*>(out[0]));
                   return 0;
                 });
}

void put_half(Random& random, uint8_t* at, Oddities oddities) {
  const uint16_t half = any_half(random, oddities);
  std::memcpy(at, &half, 2);
}

// Pages of any nibbles, with scales.
void fill_nibble_page(Random& random, const NibbleKv& kv, uint8_t* page, Oddities oddities) {
  fill_bytes(random, page, kv.bytes());
  for (size_t block = 0; block < 2; block++)
    for (size_t g = 0; g < kv.groups(); g++)
      for (size_t row = 0; row < kKeyBlock; row++)
        put_half(random, page + block * kv.key_block_bytes() + g * kv.group_bytes() + kv.plane_bytes() + row * 2, oddities);
  for (size_t at = 0; at < kPage; at++) put_half(random, page + kv.value_scales_at() + at * 2, oddities);
}

void fill_page(Random& random, int bits, int dim, uint8_t* page, Oddities oddities) {
  const size_t values = size_t(dim) * 2 * kPage;
  if (bits <= 8) return fill_nibble_page(random, NibbleKv{dim, bits / 4}, page, oddities);
  if (bits == 16)
    for (size_t i = 0; i < values; i++) put_half(random, page + i * 2, oddities);
  else
    fill(random, reinterpret_cast<float*>(page), values, 2.0f, oddities);
}

size_t page_bytes_of(int bits, int dim) {
  return bits <= 8 ? NibbleKv{dim, bits / 4}.bytes() : size_t(dim) * 2 * kPage * size_t(bits / 8);
}

void check_attend(Checks& checks, Random& random, int bits, int dim, int heads, const Look& look, Oddities oddities) {
  // Vectors of halves and floats may be read up to 64 bytes behind the last page.
  const size_t page_bytes = page_bytes_of(bits, dim), step = page_bytes + 64, slack = bits <= 8 ? 0 : 64;
  const Fenced<uint8_t> store(step * (kPages - 1) + page_bytes + slack);
  for (size_t p = 0; p < kPages; p++) fill_page(random, bits, dim, store.data() + p * step, oddities);
  const Fenced<float> q(size_t(heads) * size_t(dim));
  fill(random, q.data(), q.size(), bits == 4 || bits == 8 ? 0.3f : 1.0f, oddities);
  const Fenced<int32_t> pages(size_t(look.positions + kPage - 1) / kPage);
  for (size_t i = 0; i < pages.size(); i++) pages[i] = int32_t((i * 5 + 3) % kPages);
  AttentionArgs args{};
  args.q = q.data();
  args.heads = heads;
  args.head_dim = dim;
  args.kv = store.data();
  args.page_bytes = step;
  args.pages = pages.data();
  args.first = look.first;
  args.positions = look.positions;
  args.soft_cap = look.cap;
  args.planes = bits / 4;
  const Fenced<float> scores(kHeadsAtOnce * kStretch), running(size_t(heads) * kRunning);
  const Fenced<uint8_t> queries(size_t(heads) * quantized_row_bytes(size_t(dim + 31) / 32 * 32));
  args.scores = scores.data();
  args.running = running.data();
  args.queries = queries.data();
  const char* name = bits <= 8 ? "attention_nibbles" : bits == 16 ? "attention_half" : "attention_float";
  checks.compare(name,
                 text("bits %d, head_dim %d, heads %d, positions %d, first %d, cap %g, oddities %d", bits, dim, heads,
                      look.positions, look.first, double(look.cap), int(oddities)),
                 {{Kind::floats, q.size()}}, [&](const Kernels& k, const std::vector<void*>& out) {
                   args.out = static_cast<float*>(out[0]);
                   (bits <= 8 ? k.attention_nibbles : bits == 16 ? k.attention_half : k.attention_float)(&args);
                   return 0;
                 });
}

}  // namespace

void check_stores(Checks& checks) {
  Random random(31);
  for (const int dim : kHeadDims)
    for (const int planes : {1, 2}) {
      const Fenced<float> head{size_t(dim)};
      for (const float size : {1.0f, 0.0f, 1e-3f, 1e-9f, 1e-40f, 1e4f, 449999.0f, 1e6f})
        for (const Oddities oddities : {Oddities::none, Oddities::some}) {
          fill(random, head.data(), head.size(), size, oddities);
          check_store(checks, random, planes, head, text("size %g, oddities %d", double(size), int(oddities)));
        }
      fill_ties(random, head.data(), head.size(), planes == 1 ? -8.0f : -128.0f);
      check_store(checks, random, planes, head, "ties");
    }
}

void check_attention(Checks& checks) {
  Random random(32);
  int turn = 0;
  for (const int dim : kHeadDims)
    for (const int bits : {4, 8, 16, 32})
      for (int kind = 0; kind < 4; kind++, turn++) {
        constexpr int kMany = int(sizeof kLooks / sizeof *kLooks);
        const int heads = dim > 64 ? 1 + turn % 4 : 1 + turn % 9;
        check_attend(checks, random, bits, dim, heads, kLooks[random.below(kMany)],
                     kind == 3 ? Oddities::some : Oddities::none);
      }
}

}  // namespace potluck
