// CRC-32C (Castagnoli, reflected, polynomial 0x82F63B78): the check of every tile that is read.
// The table variant is the reference; the others give the same value faster.
#pragma once
#include <cstddef>
#include <cstdint>

namespace potluck {

// CRC of `bytes` bytes at `data` that follow bytes whose CRC is `seed` (0 where nothing goes before).
using Crc32cFunction = uint32_t (*)(uint32_t seed, const uint8_t* data, size_t bytes);

struct Crc32cVariant {
  const char* name;
  Crc32cFunction run;
};

// What this processor can run, the fastest last; entry 0 is the table. Returns the number of entries.
size_t crc32c_variants(const Crc32cVariant** variants);

// The fastest variant.
uint32_t crc32c(uint32_t seed, const uint8_t* data, size_t bytes);

// x^(8 * bytes) modulo the polynomial, in reflected order: multiplying with it appends that many zero bytes.
uint32_t crc32c_zero_bytes(uint64_t bytes);

// The register after `bytes` zero bytes, as four tables: the value is the xor of tables[i][byte i of the register].
struct Crc32cShift {
  uint32_t tables[4][256];
  explicit Crc32cShift(uint64_t bytes);
  uint32_t operator()(uint32_t crc) const {
    return tables[0][crc & 255] ^ tables[1][crc >> 8 & 255] ^ tables[2][crc >> 16 & 255] ^ tables[3][crc >> 24];
  }
};

// One file each; nullptr where the processor or the compiler's target lacks the instructions.
uint32_t crc32c_table(uint32_t seed, const uint8_t* data, size_t bytes);
Crc32cFunction crc32c_sse42();
Crc32cFunction crc32c_vpclmul();
Crc32cFunction crc32c_arm();

}  // namespace potluck
