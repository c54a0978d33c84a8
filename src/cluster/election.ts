/** What the election sees of a device. */
export interface Candidate {
  readonly id: string;
  /** Milliseconds since 1970. */
  readonly startedAt: number;
  /** It holds the model's pack completely, is not leaving, and makes plans for the device that elects (see HubReach). */
  readonly electable: boolean;
  /** The hub that it follows, by its last word. */
  readonly hubId: string | null;
  /** Devices of the plan that it serves as hub, or is preparing; 0 where it is no hub. */
  readonly clusterSize: number;
}

/**
 * The hub, as seen by a device that knows of `devices` (itself included), or null where none can be hub.
 *
 * A device CLAIMS when it names itself hub and serves more than one device. The order is: claimants first, then the one
 * that started first, then the lower id. So a device that joins, however old, never displaces a hub that serves others.
 *
 * Why all agree: let membership stop changing, and every device have a link to every other, so that each comes to know the last
 * word of all.
 * (1) The relation (startedAt, id) is total and fixed. Of all standing claimants let X be the first in it. No word that X ever
 * hears puts another claimant before X, so X stays hub and its claim stands. (2) Any other claimant hears X's claim in
 * time, follows X and so stops claiming; nobody who has heard X's claim begins a new one. Then X is the only claimant and
 * every device elects X. (3) If no claimant stands, every device elects the first electable one, which serves alone or
 * becomes a claimant; then (1) holds for it. Stale words can only delay this, for they are replaced. Two clusters that meet
 * are the case of two claimants. Were a cluster's size part of the order, (1) would not hold: sizes change as devices go over.
 *
 * Where some have no link to each other: let X be the first claimant of all. It and those that see it follow it, as before. For those that
 * do not see X nobody who follows it is electable, after a while; so among them, and the links that they have, the same holds again. Each
 * ends with a hub that it sees, or (it holds no pack, and sees no hub) with none.
 */
export function electHub(devices: readonly Candidate[]): string | null {
  let best: Candidate | null = null;
  for (const device of devices) {
    if (device.electable && (best === null || precedes(device, best))) best = device;
  }
  return best?.id ?? null;
}

const claims = (device: Candidate): boolean => device.hubId === device.id && device.clusterSize > 1;

/** True where `a` is the better hub. */
function precedes(a: Candidate, b: Candidate): boolean {
  if (claims(a) !== claims(b)) return claims(a);
  if (a.startedAt !== b.startedAt) return a.startedAt < b.startedAt;
  return a.id < b.id;
}
