import { FLOAT_OF_HALF } from './element-formats.ts';

/**
 * Matrices of 4-bit weights as GPTQ and AWQ store them: eight weights in an int32, a scale (IEEE half) and a zero point for
 * each output row and group of inputs. A weight is scale * (quantum - zero), which float32 holds exactly.
 */
export interface Int4Layout {
  readonly method: 'gptq' | 'awq';
  /** Added to stored zero points: GPTQ's first format stores one less. */
  readonly zeroOffset: number;
}

/** The parts of one matrix of `rows` outputs and `columns` inputs. */
export interface Int4Parts {
  readonly rows: number;
  readonly columns: number;
  /** GPTQ: [columns / 8, rows], eight inputs in an int32; AWQ: [columns, rows / 8], eight outputs. */
  readonly quanta: Int32Array;
  /** [groups, rows / 8], eight outputs in an int32. */
  readonly zeros: Int32Array;
  /** [groups, rows], IEEE half. */
  readonly scales: Uint16Array;
  /** The group of each input; [columns]. */
  readonly groups: Int32Array;
}

/** Which of eight outputs lies at which four bits of AWQ's int32: output 1 lies fifth, output 2 second ... */
const AWQ_PLACES = [0, 4, 1, 5, 2, 6, 3, 7];

/** Writes weights `first` to `first + count` of output row `row` to the start of `target`. */
export function decodeInt4Row(
  { method, zeroOffset }: Int4Layout,
  { rows, quanta, zeros, scales, groups }: Int4Parts,
  row: number,
  first: number,
  count: number,
  target: Float32Array,
): void {
  const place = 4 * (method === 'awq' ? AWQ_PLACES[row % 8]! : row % 8);
  const packedRow = row >> 3;
  const packedRows = rows / 8;
  for (let i = 0; i < count; i++) {
    const column = first + i;
    const group = groups[column]!;
    const zero = ((zeros[group * packedRows + packedRow]! >>> place) & 15) + zeroOffset;
    const quantum =
      method === 'awq'
        ? (quanta[column * packedRows + packedRow]! >>> place) & 15
        : (quanta[(column >> 3) * rows + row]! >>> (4 * (column & 7))) & 15;
    target[i] = FLOAT_OF_HALF[scales[group * rows + row]!]! * (quantum - zero);
  }
}
