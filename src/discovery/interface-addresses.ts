/** What `os.networkInterfaces()` returns, as far as it is used here. */
export type NetworkInterfaces = Readonly<
  Record<
    string,
    | readonly { readonly address: string; readonly family: string | number; readonly internal: boolean }[]
    | undefined
  >
>;

/** Most interfaces that are used at once; a machine with many containers has hundreds. */
export const MAX_INTERFACES = 16;

/**
 * The IPv4 addresses to look for devices on, one for each interface. Loopback counts only where there is no other
 * interface, or where it is asked for: devices on one machine hear each other on any interface.
 */
export function interfaceAddresses(interfaces: NetworkInterfaces, loopback: boolean): string[] {
  const outside: string[] = [];
  const inside: string[] = [];
  for (const name of Object.keys(interfaces).sort()) {
    const first = interfaces[name]?.find(a => a.family === 'IPv4' || a.family === 4);
    if (first !== undefined) (first.internal ? inside : outside).push(first.address);
  }
  const chosen = outside.length === 0 || loopback ? [...outside, ...inside] : outside;
  return chosen.slice(0, MAX_INTERFACES);
}
