import { expect, it } from 'vitest';
import { HubReach } from '../../src/cluster/hub-reach.ts';
import type { Member } from '../../src/cluster/members.ts';
import { PotluckError } from '../../src/errors/errors.ts';
import { ManualTimers } from './manual-timers.ts';
import { deviceInfo, idOf } from './ws-devices.ts';

const peer = (n: number) => ({ id: idOf(n), host: '10.0.0.1', port: 1000 + n });

const memberOf = (n: number, hubId: string | null, leaving = false): Member => ({
  id: idOf(n),
  device: deviceInfo(n),
  state: { type: 'state', hubId, epoch: 1, clusterSize: 0, choice: null, peers: [peer(8), peer(9)] },
  leaving,
  link: null as never,
});

function reachOf(members: Member[]) {
  const timers = new ManualTimers();
  const changes: number[] = [];
  const reach = new HubReach({
    selfId: idOf(1),
    timers,
    members: () => members,
    changed: () => {
      changes.push(timers.now());
      reach.update();
    },
  });
  reach.update();
  return { timers, reach, changes };
}

const LOST = new PotluckError('DEVICE_LOST', 'It has not answered.');

it('does not follow a device whose hub is out of reach for 10 s, and says why', () => {
  const members = [memberOf(2, idOf(9)), memberOf(3, idOf(1)), memberOf(4, idOf(4)), memberOf(5, idOf(4))];
  const { timers, reach, changes } = reachOf(members);
  const able = (): number[] => [2, 3, 4, 5].filter(n => reach.mayBeHub(idOf(n)));
  timers.advance(9999);
  expect(able()).toEqual([2, 3, 4, 5]);
  expect(reach.notes).toEqual([]);
  timers.advance(1);
  expect(changes).toEqual([10_000]);
  expect(able()).toEqual([3, 4, 5]);
  expect(reach.notes).toEqual([
    expect.stringMatching(/device-2 .* hub \(00000000 at 10\.0\.0\.1:1009\) that this device cannot reach/),
  ]);
  members.push(memberOf(9, idOf(9)));
  reach.update();
  expect(able()).toEqual([2, 3, 4, 5]);
  expect(timers.pending).toBe(0);
});

it('follows a device whose link breaks again and again only when it has stood for a while', () => {
  const flapping = memberOf(2, idOf(2));
  const { timers, reach, changes } = reachOf([flapping, memberOf(3, idOf(2))]);
  for (let n = 1; n <= 7; n++) {
    reach.lost(flapping, LOST);
    timers.advance(n === 1 ? 500 : 5000);
    expect(reach.mayBeHub(idOf(2))).toBe(n <= 4);
  }
  expect(reach.notes).toEqual([expect.stringContaining('device-2 (00000000) breaks again and again')]);
  reach.update();
  // who follows it is of no more use
  timers.advance(10_000);
  expect(reach.mayBeHub(idOf(3))).toBe(false);
  timers.advance(20_000);
  expect([reach.mayBeHub(idOf(2)), reach.mayBeHub(idOf(3)), reach.notes]).toEqual([true, true, []]);
  expect(changes.at(-1)).toBe(timers.now() - 3000);
});

it('does not hold it against a device that it left in peace', () => {
  const leaver = memberOf(2, idOf(2), true);
  const { timers, reach } = reachOf([leaver]);
  for (let n = 0; n < 8; n++) reach.lost(leaver, LOST);
  expect(reach.mayBeHub(idOf(2))).toBe(true);
  reach.stop();
  expect(timers.pending).toBe(0);
});
