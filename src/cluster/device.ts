import * as v from 'valibot';
import { printable } from '../errors/printable.ts';

/** Version of the control protocol; devices that speak another one do not join. */
export const PROTOCOL_VERSION = 3;

const wholeNumber = (least: number, most: number) =>
  v.pipe(v.number(), v.safeInteger(), v.minValue(least), v.maxValue(most));
/** Text for people. */
export const text = (most: number) => v.pipe(v.string(), v.maxLength(most), v.transform(printable));

export const deviceIdSchema = v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/));
export const modelIdSchema = v.pipe(v.string(), v.regex(/^[0-9a-f]{16,64}$/));
export const hostSchema = text(255);
export const portSchema = wholeNumber(1, 65535);
/** The highest plan number: frames carry 32 bits, and a change a second gets here in 68 years. No plan can be made behind it. */
export const MAX_EPOCH = 2 ** 31;
/** Plan numbers; rise with every change. */
export const epochSchema = wholeNumber(0, MAX_EPOCH);

export const deviceSchema = v.object({
  /** 32 hex digits, kept across restarts. */
  id: deviceIdSchema,
  /** For people. */
  name: v.pipe(text(64), v.minLength(1)),
  version: text(32),
  protocol: wholeNumber(0, 65535),
  /** When this daemon started, in milliseconds since 1970 by its own clock. */
  startedAt: wholeNumber(0, Number.MAX_SAFE_INTEGER),
  /** Where others connect to; empty: the address that they see. */
  host: hostSchema,
  linkPort: portSchema,
  apiPort: wholeNumber(0, 65535),
  threads: wholeNumber(1, 4096),
  kernel: text(64),
  /** False where its backend does not give the same bits as the others. */
  exact: v.boolean(),
  /** Bytes for weights. */
  memoryBytes: wholeNumber(0, Number.MAX_SAFE_INTEGER),
  /** Relative speed: a device of share 2 gets twice the tiles of one of share 1. */
  share: v.pipe(v.number(), v.finite(), v.minValue(1e-6), v.maxValue(1e6)),
  /** Packs that it holds completely; the first is the one it serves when it is hub and nobody asked for another. */
  models: v.pipe(
    v.array(v.pipe(v.object({ id: modelIdSchema, name: text(100) }), v.readonly())),
    v.maxLength(64),
    v.readonly(),
  ),
});

/** What a device tells others about itself. */
export type DeviceInfo = Readonly<v.InferOutput<typeof deviceSchema>>;

/** A device's name with the start of its id, for logs. */
export const deviceLabel = (device: { readonly name: string; readonly id: string }): string =>
  `${device.name} (${device.id.slice(0, 8)})`;
