/** A piece of a file, in bytes. */
export interface Extent {
  readonly offset: number;
  readonly bytes: number;
}

/** Which parts of a growing file are taken. The lowest gap that is large enough is used first. */
export class SlotSpace {
  /** Gaps in rising order; no two touch, and none reaches the end. */
  readonly #gaps: { offset: number; bytes: number }[] = [];
  #end = 0;
  #used = 0;

  /** `taken` may come in any order and must not overlap. */
  constructor(taken: Iterable<Extent>) {
    for (const { offset, bytes } of [...taken].sort((a, b) => a.offset - b.offset)) {
      if (offset > this.#end) this.#gaps.push({ offset: this.#end, bytes: offset - this.#end });
      this.#end = offset + bytes;
      this.#used += bytes;
    }
  }

  /** Bytes that are taken. */
  get used(): number {
    return this.#used;
  }

  /** Takes `bytes` and returns their offset. */
  take(bytes: number): number {
    this.#used += bytes;
    const at = this.#gaps.findIndex(gap => gap.bytes >= bytes);
    const gap = this.#gaps[at];
    if (!gap) {
      this.#end += bytes;
      return this.#end - bytes;
    }
    const { offset } = gap;
    gap.offset += bytes;
    gap.bytes -= bytes;
    if (gap.bytes === 0) this.#gaps.splice(at, 1);
    return offset;
  }

  /** Gives back what `take` gave. */
  free({ offset, bytes }: Extent): void {
    this.#used -= bytes;
    let at = this.#gaps.findIndex(gap => gap.offset > offset);
    if (at === -1) at = this.#gaps.length;
    const before = this.#gaps[at - 1];
    const after = this.#gaps[at];
    const joined = { offset, bytes };
    let from = at;
    let remove = 0;
    if (before && before.offset + before.bytes === offset) {
      joined.offset = before.offset;
      joined.bytes += before.bytes;
      from--;
      remove++;
    }
    if (after && after.offset === offset + bytes) {
      joined.bytes += after.bytes;
      remove++;
    }
    if (joined.offset + joined.bytes === this.#end) {
      this.#end = joined.offset;
      this.#gaps.splice(from, remove);
    } else this.#gaps.splice(from, remove, joined);
  }
}
