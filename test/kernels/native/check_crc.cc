// The CRC of tiles, each variant that this processor has against the table.
#include <cstdio>

#include "checks.h"
#include "crc32c.h"
#include "inputs.h"

namespace potluck {

bool check_crc() {
  const Crc32cVariant* variants;
  const size_t count = crc32c_variants(&variants);
  Random random(41);
  const Fenced<uint8_t> data(60000);
  fill_bytes(random, data.data(), data.size());
  bool fine = true;
  for (size_t v = 1; v < count; v++) {
    int calls = 0, different = 0;
    std::snprintf(running, sizeof running, "crc32c %s", variants[v].name);
    for (const size_t bytes : {0, 1, 7, 8, 9, 255, 256, 767, 768, 769, 1543, 8191, 24576, 24577, 49999, 60000})
      for (const uint32_t seed : {0u, 1u, 0xffffffffu, random.next()}) {
        const uint8_t* at = data.data() + data.size() - bytes;
        calls++;
        different += variants[v].run(seed, at, bytes) != crc32c_table(seed, at, bytes);
      }
    std::printf("crc32c %s: %d calls, %d differ\n", variants[v].name, calls, different);
    fine = fine && different == 0;
  }
  return fine;
}

}  // namespace potluck
