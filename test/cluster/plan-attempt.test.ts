import { expect, test } from 'vitest';
import { makePlan } from '../../src/cluster/make-plan.ts';
import type { Member } from '../../src/cluster/members.ts';
import { PlanAttempt } from '../../src/cluster/plan-attempt.ts';
import { PlanHolder } from '../../src/cluster/plan-holder.ts';
import { PotluckError } from '../../src/errors/errors.ts';
import { FakeHost, FakeNetwork, MODEL, TILES } from './fake-host.ts';
import { ManualTimers } from './manual-timers.ts';
import { deviceInfo, idOf } from './ws-devices.ts';

test('a hub that cannot send its plan gives the plan up and blames itself, at once', async () => {
  const timers = new ManualTimers();
  const devices = [deviceInfo(1), deviceInfo(2)];
  const spoke = {
    id: idOf(2),
    device: devices[1],
    link: {
      send: () => {
        throw new PotluckError('PROTOCOL', 'A prepare message is over 1048576 bytes.');
      },
    },
  } as unknown as Member;
  const attempt = new PlanAttempt({
    plan: makePlan({ epoch: 1, modelId: MODEL.id, tiles: TILES, devices }),
    self: devices[0]!,
    timers,
    holder: new PlanHolder(new FakeHost(idOf(1), new FakeNetwork())),
    spokes: [spoke],
    changed: () => undefined,
  });
  expect(await attempt.run()).toMatchObject({ blamed: [idOf(1)], error: { code: 'PROTOCOL' } });
  expect(timers.pending).toBe(0);
});
