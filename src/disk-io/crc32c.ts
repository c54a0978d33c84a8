/** CRC-32C (Castagnoli) in TypeScript, eight bytes a step, for where the addon is missing. */

const POLYNOMIAL = 0x82f63b78;

/** TABLES[k * 256 + b]: the register after byte b and then k zero bytes. */
const TABLES = makeTables();

function makeTables(): Uint32Array {
  const tables = new Uint32Array(8 * 256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1;
    tables[byte] = crc;
  }
  for (let i = 256; i < tables.length; i++) {
    const before = tables[i - 256]!;
    tables[i] = (before >>> 8) ^ tables[before & 255]!;
  }
  return tables;
}

/** CRC-32C of `bytes` after bytes whose CRC is `seed` (0 where nothing goes before), 0 to 2^32 - 1. */
export function crc32c(bytes: Uint8Array, seed = 0): number {
  const t = TABLES;
  const whole = bytes.length - (bytes.length % 8);
  let crc = ~seed;
  let i = 0;
  for (; i < whole; i += 8) {
    crc =
      t[1792 + ((crc ^ bytes[i]!) & 255)]! ^
      t[1536 + (((crc >>> 8) ^ bytes[i + 1]!) & 255)]! ^
      t[1280 + (((crc >>> 16) ^ bytes[i + 2]!) & 255)]! ^
      t[1024 + ((crc >>> 24) ^ bytes[i + 3]!)]! ^
      t[768 + bytes[i + 4]!]! ^
      t[512 + bytes[i + 5]!]! ^
      t[256 + bytes[i + 6]!]! ^
      t[bytes[i + 7]!]!;
  }
  for (; i < bytes.length; i++) crc = (crc >>> 8) ^ t[(crc ^ bytes[i]!) & 255]!;
  return ~crc >>> 0;
}
