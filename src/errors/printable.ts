/**
 * Text of another device as it may stand in a log or on a terminal: one line, and U+FFFD for control characters and invisible marks, but for
 * the two that join letters and emoji, or keep them apart.
 */
export const printable = (text: string): string =>
  text.replace(/[\t\n\r\p{Zl}\p{Zp}]+/gu, ' ').replace(/(?![\u200C\u200D])[\p{Cc}\p{Cf}]/gu, '\uFFFD');
