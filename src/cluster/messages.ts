import { Buffer } from 'node:buffer';
import * as v from 'valibot';
import { ERRORS, type ErrorCode, PotluckError } from '../errors/errors.ts';
import { printable } from '../errors/printable.ts';
import {
  deviceIdSchema,
  deviceSchema,
  epochSchema,
  hostSchema,
  modelIdSchema,
  portSchema,
  text,
} from './device.ts';
import { generateRequestSchema } from './generate-messages.ts';
import { modelChoiceSchema } from './model-choice.ts';
import { MAX_PLAN_DEVICES, planSchema } from './plan.ts';

/** Most bytes of a control message. */
export const MAX_MESSAGE_BYTES = 1 << 20;
/** Most addresses that a device passes on. */
export const MAX_KNOWN_PEERS = 64;

const whole = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const errorCode = v.picklist(Object.keys(ERRORS) as ErrorCode[]);
const sentence = v.pipe(
  v.string(),
  v.transform(message => printable(message.slice(0, 2000))),
);
/** Numbers a stream of tokens on one link; chosen by the side that asks. */
const stream = whole;

/** Each message: docs/cluster.md. */
const messageSchema = v.variant('type', [
  v.object({
    type: v.literal('hello'),
    protocol: whole,
    version: text(32),
    cluster: text(64),
    device: deviceSchema,
  }),
  v.object({
    type: v.literal('state'),
    hubId: v.nullable(deviceIdSchema),
    epoch: epochSchema,
    clusterSize: v.pipe(whole, v.maxValue(MAX_PLAN_DEVICES)),
    choice: v.nullable(modelChoiceSchema),
    peers: v.pipe(
      v.array(v.object({ id: deviceIdSchema, host: hostSchema, port: portSchema })),
      v.maxLength(MAX_KNOWN_PEERS),
    ),
  }),
  v.object({ type: v.literal('device'), device: deviceSchema }),
  v.object({ type: v.literal('ping'), n: whole }),
  v.object({ type: v.literal('pong'), n: whole }),
  v.object({ type: v.literal('prepare'), plan: planSchema }),
  v.object({ type: v.literal('prepare-progress'), epoch: epochSchema, bytes: whole, total: whole }),
  v.object({ type: v.literal('prepared'), epoch: epochSchema }),
  v.object({ type: v.literal('activate'), epoch: epochSchema }),
  v.object({ type: v.literal('active'), epoch: epochSchema, kvPages: whole }),
  v.object({ type: v.literal('plan-failed'), epoch: epochSchema, code: errorCode, message: sentence }),
  v.object({ type: v.literal('retire'), epoch: epochSchema }),
  v.object({ type: v.literal('leave') }),
  v.object({ type: v.literal('left') }),
  v.object({ type: v.literal('generate'), stream, modelId: modelIdSchema, request: generateRequestSchema }),
  v.object({ type: v.literal('token'), stream, id: whole }),
  v.object({ type: v.literal('finish'), stream, reason: v.picklist(['stop', 'length']) }),
  v.object({ type: v.literal('generate-failed'), stream, code: errorCode, message: sentence }),
  v.object({ type: v.literal('credit'), stream, tokens: v.pipe(whole, v.maxValue(1024)) }),
  v.object({ type: v.literal('cancel'), stream }),
  v.object({ type: v.literal('status-request'), n: whole }),
  v.object({ type: v.literal('status-reply'), n: whole, status: v.unknown() }),
]);

export type Message = v.InferOutput<typeof messageSchema>;
export type MessageOf<T extends Message['type']> = Extract<Message, { type: T }>;

/** The part of a hello that every version understands. */
const greetingSchema = v.object({
  type: v.literal('hello'),
  protocol: whole,
  version: text(32),
  cluster: text(64),
  device: v.object({
    id: deviceIdSchema,
    name: text(64),
    startedAt: whole,
  }),
});

export type Greeting = v.InferOutput<typeof greetingSchema>;

const broken = (reason: string, cause?: unknown): PotluckError =>
  new PotluckError(
    'PROTOCOL',
    `A control message is not valid: ${reason}. Run the same version of Potluck everywhere.`,
    {
      cause,
    },
  );

function parseJson(text: string): unknown {
  if (Buffer.byteLength(text) > MAX_MESSAGE_BYTES)
    throw broken(`it has more than ${MAX_MESSAGE_BYTES} bytes`);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw broken('it is not JSON', error);
  }
}

function check<S extends v.GenericSchema>(schema: S, value: unknown): v.InferOutput<S> {
  const result = v.safeParse(schema, value, { abortEarly: true });
  if (result.success) return result.output;
  const issue = result.issues[0];
  throw broken(`${v.getDotPath(issue) ?? 'message'}: ${printable(issue.message.slice(0, 200))}`);
}

/** The message in `text`. Throws PROTOCOL. */
export const parseMessage = (text: string): Message => check(messageSchema, parseJson(text));

/** The first message of a link, of whatever version. Throws PROTOCOL. */
export const parseGreeting = (text: string): Greeting => check(greetingSchema, parseJson(text));

/** The text of a message. Throws PROTOCOL where it is over the limit. */
export function messageText(message: Message): string {
  const text = JSON.stringify(message);
  if (Buffer.byteLength(text) > MAX_MESSAGE_BYTES) {
    throw new PotluckError('PROTOCOL', `A ${message.type} message is over ${MAX_MESSAGE_BYTES} bytes.`);
  }
  return text;
}
