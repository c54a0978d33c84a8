/** Length of `text` without an end that may be the beginning of `mark`. */
export function certainLength(text: string, mark: string): number {
  for (let length = Math.min(mark.length - 1, text.length); length > 0; length--)
    if (text.endsWith(mark.slice(0, length))) return text.length - length;
  return text.length;
}
