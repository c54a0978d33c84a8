/** Memory for one tile on its way, used again for the next: new memory for each would be garbage for long. */
export class TileBuffer {
  #bytes = new Uint8Array(0);

  /** The first `bytes` of it; what was there is written over. */
  readonly take = (bytes: number): Uint8Array => {
    if (this.#bytes.length < bytes) this.#bytes = new Uint8Array(bytes);
    return this.#bytes.subarray(0, bytes);
  };
}
