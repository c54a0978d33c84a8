import { ERRORS, type ErrorCode, type PotluckError } from '../errors/errors.ts';
import { printable } from '../errors/printable.ts';
import { OutgoingFrame } from './frame.ts';

/** Payload of a FAIL frame: code length u16, message length u16 (bytes), code, message, zeros to a multiple of 4. */

const PREFIX_BYTES = 4;
const MOST_CODE_BYTES = 64;
const MOST_MESSAGE_BYTES = 1024;
export const MOST_FAIL_BYTES = PREFIX_BYTES + MOST_CODE_BYTES + MOST_MESSAGE_BYTES;

/** A frame with `error` in it and the payload bytes it takes. A long message is cut. */
export function encodeFail(error: PotluckError): { frame: OutgoingFrame; length: number } {
  const code = Buffer.from(error.code, 'latin1');
  const message = cutUtf8(Buffer.from(error.message, 'utf8'), MOST_MESSAGE_BYTES);
  const length = Math.ceil((PREFIX_BYTES + code.length + message.length) / 4) * 4;
  const frame = new OutgoingFrame(length);
  const payload = frame.bytes.subarray(frame.bytes.length - length);
  payload.writeUInt16LE(code.length, 0);
  payload.writeUInt16LE(message.length, 2);
  code.copy(payload, PREFIX_BYTES);
  message.copy(payload, PREFIX_BYTES + code.length);
  return { frame, length };
}

/** Code and message of a FAIL payload, or undefined where the lengths contradict it. A code that this version does
 *  not know reads as INTERNAL. */
export function decodeFail(payload: Buffer): { code: ErrorCode; message: string } | undefined {
  if (payload.length < PREFIX_BYTES) return undefined;
  const codeBytes = payload.readUInt16LE(0);
  const messageBytes = payload.readUInt16LE(2);
  const used = PREFIX_BYTES + codeBytes + messageBytes;
  if (codeBytes > MOST_CODE_BYTES || messageBytes > MOST_MESSAGE_BYTES) return undefined;
  if (Math.ceil(used / 4) * 4 !== payload.length) return undefined;
  const code = payload.toString('latin1', PREFIX_BYTES, PREFIX_BYTES + codeBytes);
  const message = printable(payload.toString('utf8', PREFIX_BYTES + codeBytes, used));
  return { code: Object.hasOwn(ERRORS, code) ? (code as ErrorCode) : 'INTERNAL', message };
}

/** At most `most` bytes of UTF-8 text, not cut inside a character. */
function cutUtf8(text: Buffer, most: number): Buffer {
  if (text.length <= most) return text;
  let end = most;
  while (end > 0 && (text[end]! & 0xc0) === 0x80) end--;
  return text.subarray(0, end);
}
