import { expect, it } from 'vitest';
import { PackProgress } from '../../src/cli/pack-progress.ts';
import { ProgressLine } from '../../src/cli/progress-line.ts';

const rounding = (layer: number, done: number) =>
  ({ stage: 'round', layer, layers: 80, done, total: 1000, tiles: 7 }) as const;

it('estimates the time left from what this run did, not from what an interrupted one had done', () => {
  let now = 50_000;
  const progress = new PackProgress(() => now);
  expect(progress.text(rounding(40, 500))).toBe('Rounding layer 41/80, 50.0 %');
  now += 600_000;
  expect(progress.text(rounding(40, 510))).toBe('Rounding layer 41/80, 51.0 %, about 8 h 10 min left');
  now += 600_000;
  expect(progress.text(rounding(80, 990))).toBe('Rounding the head, 99.0 %, about 24 s left');
});

it('leaves a line for each layer where there is no terminal', () => {
  const written: string[] = [];
  const line = new ProgressLine({ write: text => written.push(text) });
  const progress = new PackProgress(() => 0);
  for (const [layer, done] of [
    [0, 1],
    [0, 5],
    [1, 12],
    [1, 20],
    [80, 990],
  ] as const)
    progress.show(line, rounding(layer, done));
  expect(written.map(text => text.replace(/, about.*/s, ''))).toEqual([
    'Rounding layer 2/80, 1.2 %',
    'Rounding the head, 99.0 %',
  ]);
});
