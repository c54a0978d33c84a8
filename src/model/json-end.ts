/** Follows a JSON object or list through text that comes in pieces, and tells where it ends. Braces in strings do not count. */
export class JsonEnd {
  #depth = 0;
  #inString = false;
  #escaped = false;

  /** Place behind the end of the value in `text`, or null where it goes on. The value's first character is the first of all text. */
  push(text: string): number | null {
    for (let i = 0; i < text.length; i++) {
      const character = text[i]!;
      if (this.#inString) {
        if (this.#escaped) this.#escaped = false;
        else if (character === '\\') this.#escaped = true;
        else if (character === '"') this.#inString = false;
      } else if (character === '"') this.#inString = true;
      else if (character === '{' || character === '[') this.#depth++;
      else if ((character === '}' || character === ']') && --this.#depth <= 0) return i + 1;
    }
    return null;
  }
}
