/**
 * Keeps text of a user from becoming control tokens. Where a user's text spells a control token, a breaker (private-use
 * characters that occur nowhere else in the request) is put after its first character, so that no tokenizer rule finds
 * the token; the tokenizer takes the breaker out again after control tokens are split off. All other text is untouched,
 * so it is tokenized exactly as if it had been encoded whole.
 *
 * A template that deletes parts from inside a message could still join two harmless parts to a control token.
 */
export interface ControlText {
  /** True where `text` spells a control token. */
  spells(text: string): boolean;
  /** `text` with every spelled control token broken. */
  break(text: string, breaker: string): string;
}

/** `tokens`: strings of the control tokens. Those of a single character cannot be broken and are left out. */
export function createControlText(tokens: readonly string[]): ControlText {
  const breakable = tokens.filter(token => [...token].length > 1);
  const pattern = breakable.map(escapePattern).join('|');
  const found = pattern === '' ? null : new RegExp(pattern, 'g');
  return {
    spells(text) {
      return text.search(found ?? /(?!)/) >= 0;
    },
    break(text, breaker) {
      if (found === null) return text;
      let broken = '';
      let from = 0;
      found.lastIndex = 0;
      for (let match = found.exec(text); match !== null; match = found.exec(text)) {
        // Go on after the first character only: another token may begin inside this one.
        const cut = match.index + String.fromCodePoint(match[0].codePointAt(0)!).length;
        broken += text.slice(from, cut) + breaker;
        from = cut;
        found.lastIndex = cut;
      }
      return broken + text.slice(from);
    },
  };
}

/** Private-use characters around a number, so that there is always one that occurs in none of the texts. */
export function chooseBreaker(texts: readonly string[]): string {
  const taken = new Set<number>();
  for (const text of texts) {
    for (const match of text.matchAll(/\uE000(\d{1,9})\uE001/g)) taken.add(Number(match[1]));
  }
  let number = 0;
  while (taken.has(number)) number++;
  return `\uE000${number}\uE001`;
}

function escapePattern(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}
