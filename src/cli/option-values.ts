import { PotluckError } from '../errors/errors.ts';

/** Reads the values of command line options. Each throws BAD_OPTION that names the option and says what is allowed. */

const refuse = (option: string, text: string, allowed: string): PotluckError =>
  new PotluckError('BAD_OPTION', `${option} ${JSON.stringify(text)} is not allowed: give ${allowed}`);

/** A decimal number with a unit from `units` behind it; null where it is not one. */
function numberWithUnit(text: string, units: Readonly<Record<string, number>>): number | null {
  const match = /^(\d{1,15}(?:\.\d{1,9})?)([a-z/]*)$/i.exec(text);
  const unit = units[match?.[2]?.toLowerCase() ?? ''];
  if (match === null || unit === undefined) return null;
  const value = Number(match[1]) * unit;
  return Number.isFinite(value) ? value : null;
}

const SIZES = { '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };

/** '256M', '1.5G': bytes, units are powers of 1024. */
export function parseBytes(option: string, text: string): number {
  const bytes = numberWithUnit(text.replace(/i?b$/i, ''), SIZES);
  if (bytes === null || bytes < 1 || bytes > Number.MAX_SAFE_INTEGER) {
    throw refuse(option, text, 'a size such as 256M or 1.5G');
  }
  return Math.floor(bytes);
}

/** '1ms', '250us', '2s', at most an hour: milliseconds. */
export function parseDuration(option: string, text: string): number {
  const milliseconds = numberWithUnit(text, { us: 1e-3, ms: 1, s: 1e3 });
  if (milliseconds === null || milliseconds > 3_600_000) {
    throw refuse(option, text, 'a duration such as 1ms, 250us or 2s');
  }
  return milliseconds;
}

/** '100mbit', '1gbit', '500kbit', at least 1 kbit: bytes a second, units are powers of 1000. */
export function parseRate(option: string, text: string): number {
  const bits = numberWithUnit(text.replace(/\/s$|ps$/i, ''), { bit: 1, kbit: 1e3, mbit: 1e6, gbit: 1e9 });
  if (bits === null || bits < 1e3 || bits > 1e12)
    throw refuse(option, text, 'a rate such as 100mbit or 1gbit');
  return bits / 8;
}

export function parseInteger(option: string, text: string, least: number, most: number): number {
  const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= least && value <= most))
    throw refuse(option, text, `a whole number from ${least} to ${most}`);
  return value;
}

export const parsePort = (option: string, text: string): number => parseInteger(option, text, 0, 65535);

/** A positive decimal number. */
export function parsePositive(option: string, text: string): number {
  const value = numberWithUnit(text, { '': 1 });
  if (value === null || value <= 0 || value > 1e6)
    throw refuse(option, text, 'a number over 0, at most 1000000');
  return value;
}

/** A decimal number from 0 on. */
export function parseUpTo(option: string, text: string, most: number): number {
  const value = numberWithUnit(text, { '': 1 });
  if (value === null || value > most) throw refuse(option, text, `a number from 0 to ${most}`);
  return value;
}

/** '1,2,3': as many positive numbers as there are devices. */
export function parsePositives(option: string, text: string): number[] {
  return text.split(',').map(part => parsePositive(option, part.trim()));
}

/** '1,2,4': whole numbers. */
export function parseIntegers(option: string, text: string, least: number, most: number): number[] {
  return text.split(',').map(part => parseInteger(option, part.trim(), least, most));
}

export interface HostAndPort {
  readonly host: string;
  readonly port: number;
}

/** 'host:port' or '[IPv6]:port'. */
export function parsePeer(option: string, text: string): HostAndPort {
  const match = /^(?:\[([0-9a-f:.]+)\]|([^\s:/[\]]{1,253})):(\d{1,5})$/i.exec(text);
  const port = Number(match?.[3]);
  const host = match?.[1] ?? match?.[2];
  if (host === undefined || !(port >= 1 && port <= 65535)) {
    throw refuse(option, text, 'host:port, for example 192.168.1.20:11501');
  }
  return { host, port };
}

/** A name: letters, digits, dot, dash, underscore and spaces inside, at most 63 characters. */
export function parseName(option: string, text: string): string {
  if (!/^[\p{L}\p{N}](?:[\p{L}\p{N} ._-]{0,61}[\p{L}\p{N}])?$/u.test(text)) {
    throw refuse(option, text, 'a name of at most 63 letters, digits, dots, dashes, underscores or spaces');
  }
  return text;
}

export function parseChoice<T extends string>(option: string, text: string, choices: readonly T[]): T {
  const choice = choices.find(each => each === text);
  if (choice === undefined) throw refuse(option, text, choices.join(' or '));
  return choice;
}

/** An address of an API, without the slash at the end. */
export function parseUrl(option: string, text: string): string {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw refuse(option, text, 'an address such as http://127.0.0.1:11500');
  }
  return url.origin;
}
