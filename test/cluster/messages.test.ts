import { describe, expect, it } from 'vitest';
import { makePlan } from '../../src/cluster/make-plan.ts';
import { MAX_MESSAGE_BYTES, messageText, parseGreeting, parseMessage } from '../../src/cluster/messages.ts';
import { MAX_PLAN_TILES, type PlannedTile, planFromMessage, planToMessage } from '../../src/cluster/plan.ts';
import { MODEL } from './fake-host.ts';
import { deviceInfo, idOf } from './ws-devices.ts';

const devices = (n: number) => Array.from({ length: n }, (_, i) => deviceInfo(i + 1, { share: 1 + i / 7 }));

function bigModel(layers: number): PlannedTile[] {
  const tiles: PlannedTile[] = [];
  for (let layer = 0; layer < layers; layer++) {
    for (let i = 0; i < 8; i++) tiles.push({ kind: 'attention', layer, bytes: 2 ** 20 });
    for (let i = 0; i < 112; i++) tiles.push({ kind: 'ffn', layer, bytes: 2 ** 20 });
  }
  return tiles;
}

describe('messages', () => {
  it('carry the plan of a 70B model on 16 devices well under the limit', () => {
    const plan = makePlan({
      epoch: 3,
      modelId: '00112233aabbccdd',
      tiles: bigModel(80),
      devices: devices(16),
    });
    expect(plan.assignment.length).toBe(9600);
    const text = messageText({ type: 'prepare', plan: planToMessage(plan) });
    expect(text.length).toBeLessThan(MAX_MESSAGE_BYTES / 8);
    const back = parseMessage(text);
    expect(back.type === 'prepare' && planFromMessage(back.plan)).toEqual(plan);
  });

  it('refuse a plan that contradicts itself', () => {
    const plan = planToMessage(
      makePlan({ epoch: 3, modelId: '00112233aabbccdd', tiles: bigModel(1), devices: devices(2) }),
    );
    const refused = (change: Partial<typeof plan>) => () => planFromMessage({ ...plan, ...change });
    expect(refused({})).not.toThrow();
    expect(refused({ hubId: idOf(2) })).toThrow(/hub/);
    expect(refused({ devices: [plan.devices[0]!, plan.devices[0]!] })).toThrow(/twice/);
    expect(refused({ runs: [2, 5] })).toThrow(/not in it/);
    expect(refused({ runs: [0] })).toThrow(/runs/);
    expect(refused({ runs: [0, MAX_PLAN_TILES, 1, 1] })).toThrow(/runs/);
  });

  it('are refused over the limit, on both sides', () => {
    const status = 'x'.repeat(MAX_MESSAGE_BYTES);
    expect(() => messageText({ type: 'status-reply', n: 1, status })).toThrow(/over/);
    expect(() => parseMessage(JSON.stringify({ type: 'status-reply', n: 1, status }))).toThrow(/bytes/);
  });

  it('hold texts that can be shown: no line ends, no escape sequences', () => {
    const evil = 'a\n\u001b[31mb\u202ec\r\n';
    const device = {
      ...deviceInfo(1),
      name: evil,
      kernel: evil,
      host: evil,
      models: [{ ...MODEL, name: evil }],
    };
    const shown = 'a \ufffd[31mb\ufffdc ';
    expect(parseMessage(JSON.stringify({ type: 'device', device }))).toMatchObject({
      device: { name: shown, kernel: shown, host: shown, models: [{ name: shown }] },
    });
    const failed = { type: 'plan-failed', epoch: 1, code: 'INTERNAL', message: evil };
    expect(parseMessage(JSON.stringify(failed))).toMatchObject({ message: shown });
    const greeting = { type: 'hello', protocol: 1, version: evil, cluster: evil, device };
    expect(parseGreeting(JSON.stringify(greeting))).toMatchObject({
      version: shown,
      cluster: shown,
      device: { name: shown },
    });
    expect(() => parseMessage(JSON.stringify({ type: evil }))).toThrow(/^[^\p{Cc}\p{Cf}]+$/u);
  });

  it('bound what they hold', () => {
    const hello = (change: object) =>
      JSON.stringify({
        type: 'hello',
        protocol: 1,
        version: '1',
        cluster: 'c',
        device: { ...deviceInfo(1), ...change },
      });
    expect(() => parseMessage(hello({}))).not.toThrow();
    for (const change of [
      { id: 'XYZ' },
      { name: 'n'.repeat(65) },
      { linkPort: 70_000 },
      { share: 0 },
      { share: -1 },
      { memoryBytes: -5 },
      { models: Array.from({ length: 65 }, () => ({ id: '0123456789abcdef', name: '' })) },
      { models: [{ id: '../../etc', name: '' }] },
    ]) {
      expect(() => parseMessage(hello(change)), JSON.stringify(change).slice(0, 60)).toThrow(/not valid/);
    }
    const long = JSON.stringify({
      type: 'plan-failed',
      epoch: 1,
      code: 'INTERNAL',
      message: 'm'.repeat(9000),
    });
    expect(parseMessage(long)).toMatchObject({ message: 'm'.repeat(2000) });
  });
});
