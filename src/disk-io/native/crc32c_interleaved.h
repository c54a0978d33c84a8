// Three CRCs of three neighbouring stretches at once: the instruction takes three cycles but starts one each cycle.
// Included by one file per instruction set, inside its own anonymous namespace and with its own flags.
// Needs POTLUCK_CRC_TARGET, crc_word(uint32_t, uint64_t) and crc_byte(uint32_t, uint8_t).

template <size_t Stretch>
POTLUCK_CRC_TARGET inline uint32_t three_stretches(uint32_t crc, const uint8_t** data, size_t* bytes,
                                                   const Crc32cShift& shift) {
  while (*bytes >= 3 * Stretch) {
    const uint8_t* at = *data;
    uint32_t second = 0;
    uint32_t third = 0;
    for (size_t i = 0; i < Stretch; i += 8) {
      uint64_t a, b, c;
      std::memcpy(&a, at + i, 8);
      std::memcpy(&b, at + Stretch + i, 8);
      std::memcpy(&c, at + 2 * Stretch + i, 8);
      crc = crc_word(crc, a);
      second = crc_word(second, b);
      third = crc_word(third, c);
    }
    crc = shift(shift(crc) ^ second) ^ third;
    *data += 3 * Stretch;
    *bytes -= 3 * Stretch;
  }
  return crc;
}

POTLUCK_CRC_TARGET uint32_t interleaved(uint32_t seed, const uint8_t* data, size_t bytes) {
  static const Crc32cShift far(8192);
  static const Crc32cShift near(256);
  uint32_t crc = ~seed;
  crc = three_stretches<8192>(crc, &data, &bytes, far);
  crc = three_stretches<256>(crc, &data, &bytes, near);
  for (; bytes >= 8; bytes -= 8, data += 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    crc = crc_word(crc, word);
  }
  for (; bytes > 0; bytes--) crc = crc_byte(crc, *data++);
  return ~crc;
}
