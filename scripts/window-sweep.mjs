#!/usr/bin/env node
// Tokens a second against memory, from the least budget to all resident: runs `potluck bench window` for each, in rounds, since a
// disk is slower in one minute than in the next, and draws a chart of the means.
//   node scripts/window-sweep.mjs [--shape llama-3.2-1b] [--rounds 2] [--runs 5] [--out docs/window-sweep.svg] [--sizes 160M,240M,...]

import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { projectRoot, setupOrExit } from './setup.mjs';

const { values } = parseArgs({
  options: {
    shape: { type: 'string', default: 'llama-3.2-1b' },
    rounds: { type: 'string', default: '2' },
    runs: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '1' },
    sizes: { type: 'string', default: '160M,200M,240M,320M,400M,500M,600M,700M,800M,900M' },
    out: { type: 'string', default: join(projectRoot, 'docs', 'window-sweep.svg') },
  },
});

/** The report of one budget. */
async function measure(memory) {
  const args = [
    '--shape',
    values.shape,
    '--memory',
    memory,
    '--runs',
    values.runs,
    '--seconds',
    values.seconds,
  ];
  const child = spawn(
    process.execPath,
    [join(projectRoot, 'build/js/cli/main.js'), 'bench', 'window', ...args, '--decode-only', '--json'],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  let text = '';
  for await (const part of child.stdout) text += part;
  if (text === '') throw new Error(`bench window --memory ${memory} failed`);
  return JSON.parse(text);
}

const WIDTH = 760;
const HEIGHT = 420;
const LEFT = 70;
const RIGHT = 20;
const TOP = 50;
const BOTTOM = 60;

/** Up to `most`, about five marks. */
function marks(most) {
  const step = [1, 2, 2.5, 5, 10]
    .map(each => each * 10 ** Math.floor(Math.log10(most / 5)))
    .find(each => most / each <= 6);
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, i) => i * step);
}

/** 1, 2, 5, 10, ... between two rates, and one mark beyond each of them. */
function rateMarks(least, most) {
  const all = [0.01, 0.1, 1, 10, 100, 1000].flatMap(power => [power, 2 * power, 5 * power]);
  const first = all.findLastIndex(mark => mark <= least);
  return all.slice(Math.max(0, first), all.findIndex(mark => mark >= most) + 1);
}

/** points: { mib, measured, predicted }, by rising memory. The rates have a logarithmic axis: equal steps are equal factors. */
function chart(points, title) {
  const mostX = Math.max(...points.map(({ mib }) => mib)) * 1.05;
  const x = mib => LEFT + ((WIDTH - LEFT - RIGHT) * mib) / mostX;
  const rates = points.flatMap(({ measured, predicted }) => [measured, predicted]);
  const yMarks = rateMarks(Math.min(...rates), Math.max(...rates));
  const [low, high] = [yMarks[0], yMarks.at(-1)].map(Math.log);
  const y = rate => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * (Math.log(rate) - low)) / (high - low);
  const line = which =>
    points.map(point => `${x(point.mib).toFixed(1)},${y(point[which]).toFixed(1)}`).join(' ');
  const text = (at, below, words, anchor = 'middle') =>
    `<text x="${at.toFixed(1)}" y="${below.toFixed(1)}" text-anchor="${anchor}">${words}</text>`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="13" fill="#444">`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#fff"/>`,
    text(WIDTH / 2, 24, title),
    ...yMarks.map(
      rate =>
        `<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y(rate).toFixed(1)}" y2="${y(rate).toFixed(1)}" stroke="#ddd"/>${text(LEFT - 8, y(rate) + 4, rate, 'end')}`,
    ),
    ...marks(mostX).map(mib => text(x(mib), HEIGHT - BOTTOM + 20, mib)),
    text(WIDTH / 2, HEIGHT - 14, '--memory, MiB'),
    `<text transform="translate(18 ${HEIGHT / 2}) rotate(-90)" text-anchor="middle">tokens/s, logarithmic</text>`,
    `<polyline points="${line('predicted')}" fill="none" stroke="#999" stroke-dasharray="5 4"/>`,
    `<polyline points="${line('measured')}" fill="none" stroke="#0a6" stroke-width="2"/>`,
    ...points.map(
      point =>
        `<circle cx="${x(point.mib).toFixed(1)}" cy="${y(point.measured).toFixed(1)}" r="3.5" fill="#0a6"/>`,
    ),
    text(
      LEFT + 12,
      TOP + 20,
      'measured (dots), and predicted from the disk rate and the time of compute (dashed)',
      'start',
    ),
    '</svg>',
    '',
  ].join('\n');
}

const mean = numbers => numbers.reduce((sum, number) => sum + number, 0) / numbers.length;

await setupOrExit();
const sizes = values.sizes.split(',');
const benches = new Map(sizes.map(size => [size, []]));
for (let round = 0; round < Number(values.rounds); round++)
  for (const size of sizes) {
    const bench = await measure(size);
    benches.get(size).push(bench);
    process.stdout.write(
      `${size}: ${bench.tokensPerSecond.toFixed(2)} tokens/s, predicted ${bench.predictedTokensPerSecond.toFixed(2)}; ` +
        `${(bench.streamedBytesPerToken / 2 ** 20).toFixed(0)} MiB streamed a token, ${(bench.highWaterBytes / 2 ** 20).toFixed(0)} MiB at the highest\n`,
    );
  }
const points = [...benches.values()].map(all => ({
  mib: all[0].budgetBytes / 2 ** 20,
  measured: mean(all.map(bench => bench.tokensPerSecond)),
  predicted: mean(all.map(bench => bench.predictedTokensPerSecond)),
}));
for (const { mib, measured, predicted } of points)
  process.stdout.write(
    `${mib} MiB: ${measured.toFixed(2)} tokens/s, ${(measured / predicted).toFixed(2)} of predicted\n`,
  );
writeFileSync(values.out, chart(points, `${values.shape}, 4 bits, one device: tokens/s against memory`));
process.stdout.write(`${values.out}\n`);
