import { OutgoingFrame } from './frame.ts';
import type { PassLimits } from './pass-payload.ts';

/** What a device is in a plan. */
export type StarRole = 'hub' | 'spoke' | 'alone';

type FrameLimits = Pick<PassLimits, 'maxTokens' | 'width'>;

/**
 * Memory of the frames of the largest pass, made and written when a plan begins: so it is part of the account of memory from then
 * on, and a long prompt takes no more. Logits are not here: they grow to the rows that were ever asked for.
 */

/** What a PASS frame has beside the residual, mostly; one with more pages than this gets memory of its own. */
const BATCH_BYTES = 64 << 10;

const tokenBytes = ({ maxTokens, width }: FrameLimits): number => maxTokens * width * 4;

export interface HubFrames {
  readonly pass: OutgoingFrame;
  /** One is added up while the other may still be going out. */
  readonly sums: readonly [OutgoingFrame, OutgoingFrame];
}

export interface SpokeFrames {
  /** Where PASS payloads arrive. */
  readonly pass: Buffer;
  readonly partial: OutgoingFrame;
}

/** Bytes of the frames of a hub, or of a spoke; 0 for a device alone. */
export const frameBytes = (limits: FrameLimits, role: StarRole): number =>
  role === 'alone' ? 0 : BATCH_BYTES + tokenBytes(limits) * (role === 'hub' ? 3 : 2);

export function hubFrames(limits: FrameLimits): HubFrames {
  const bytes = tokenBytes(limits);
  return { pass: written(bytes + BATCH_BYTES), sums: [written(bytes), written(bytes)] };
}

export function spokeFrames(limits: FrameLimits): SpokeFrames {
  const bytes = tokenBytes(limits);
  return { pass: Buffer.from(new ArrayBuffer(bytes + BATCH_BYTES)).fill(0), partial: written(bytes) };
}

/** The system gives memory only for what is written. */
function written(payloadBytes: number): OutgoingFrame {
  const frame = new OutgoingFrame(payloadBytes);
  frame.ints.fill(0);
  return frame;
}
