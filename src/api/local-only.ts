import { PotluckError } from '../errors/errors.ts';

/**
 * Keeps web pages from using the endpoint through their visitor's browser. The Host header must be a loopback name or an IP
 * address: a page that points its own name at this device (DNS rebinding) is refused. A browser's Origin
 * must be loopback or the endpoint itself. Throws FORBIDDEN.
 */
export function checkCaller(hostHeader: string | undefined, origin: string | undefined): void {
  const host = hostHeader === undefined ? null : parse(`http://${hostHeader}`);
  if (host === null || !(isLoopback(host) || isAddress(host))) {
    throw new PotluckError(
      'FORBIDDEN',
      'The Host header names a host that is not allowed here. Use localhost or an IP address.',
    );
  }
  if (origin === undefined) return;
  const page = parse(origin);
  if (page !== null && (isLoopback(page) || page.host === host.host)) return;
  throw new PotluckError('FORBIDDEN', 'Web pages of other hosts may not use this endpoint.');
}

/** Reads an origin or `http://` + Host header; null for anything more or less than scheme, host and port. */
function parse(text: string): URL | null {
  if (!/^https?:\/\/[^/?#@\\\s]+$/i.test(text) || !URL.canParse(text)) return null;
  return new URL(text);
}

function isLoopback({ hostname }: URL): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(hostname);
}

/** URL writes IPv4 addresses with four decimal parts and IPv6 addresses in brackets. */
function isAddress({ hostname }: URL): boolean {
  return hostname.startsWith('[') || /^\d+\.\d+\.\d+\.\d+$/.test(hostname);
}
