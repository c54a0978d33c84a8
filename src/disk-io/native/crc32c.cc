#include "crc32c.h"

namespace potluck {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78;
// x^0 in reflected order: bit 31 is the constant term.
constexpr uint32_t kOne = uint32_t(1) << 31;

// Product of two polynomials modulo the CRC's.
uint32_t multiply(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (uint32_t bit = kOne; bit != 0; bit >>= 1) {
    if (a & bit) product ^= b;
    b = b & 1 ? (b >> 1) ^ kPolynomial : b >> 1;
  }
  return product;
}

struct Tables {
  uint32_t at[8][256];
};

constexpr Tables make_tables() {
  Tables t{};
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >> 1) ^ kPolynomial : crc >> 1;
    t.at[0][i] = crc;
  }
  for (uint32_t i = 0; i < 256; i++)
    for (int k = 1; k < 8; k++) t.at[k][i] = (t.at[k - 1][i] >> 8) ^ t.at[0][t.at[k - 1][i] & 255];
  return t;
}

constexpr Tables kTables = make_tables();

uint32_t little_endian(const uint8_t* p) {
  return uint32_t(p[0]) | uint32_t(p[1]) << 8 | uint32_t(p[2]) << 16 | uint32_t(p[3]) << 24;
}

struct Variants {
  Crc32cVariant list[4];
  size_t count = 0;
  void add(const char* name, Crc32cFunction run) {
    if (run != nullptr) list[count++] = Crc32cVariant{name, run};
  }
};

const Variants& variants() {
  static const Variants found = [] {
    Variants v;
    v.add("table", crc32c_table);
    v.add("sse4.2", crc32c_sse42());
    v.add("vpclmulqdq", crc32c_vpclmul());
    v.add("arm-crc", crc32c_arm());
    return v;
  }();
  return found;
}

}  // namespace

uint32_t crc32c_zero_bytes(uint64_t bytes) {
  uint32_t square = kOne >> 8;
  uint32_t power = kOne;
  for (; bytes != 0; bytes >>= 1) {
    if (bytes & 1) power = multiply(square, power);
    square = multiply(square, square);
  }
  return power;
}

uint32_t crc32c_table(uint32_t seed, const uint8_t* data, size_t bytes) {
  const auto& t = kTables.at;
  uint32_t crc = ~seed;
  for (; bytes >= 8; bytes -= 8, data += 8) {
    const uint32_t low = little_endian(data) ^ crc;
    const uint32_t high = little_endian(data + 4);
    crc = t[7][low & 255] ^ t[6][low >> 8 & 255] ^ t[5][low >> 16 & 255] ^ t[4][low >> 24] ^ t[3][high & 255] ^
          t[2][high >> 8 & 255] ^ t[1][high >> 16 & 255] ^ t[0][high >> 24];
  }
  for (; bytes > 0; bytes--) crc = (crc >> 8) ^ t[0][(crc ^ *data++) & 255];
  return ~crc;
}

Crc32cShift::Crc32cShift(uint64_t bytes) {
  const uint32_t power = crc32c_zero_bytes(bytes);
  for (int k = 0; k < 4; k++)
    for (uint32_t i = 0; i < 256; i++) tables[k][i] = multiply(power, i << (8 * k));
}

size_t crc32c_variants(const Crc32cVariant** out) {
  *out = variants().list;
  return variants().count;
}

uint32_t crc32c(uint32_t seed, const uint8_t* data, size_t bytes) {
  const Variants& v = variants();
  return v.list[v.count - 1].run(seed, data, bytes);
}

}  // namespace potluck
