#!/usr/bin/env node
// Tokens a second against memory, from the least budget to all resident: runs `potluck bench window` for each and draws a chart.
//   node scripts/window-sweep.mjs [--shape llama-3.2-1b] [--runs 5] [--out docs/window-sweep.svg] [--sizes 160M,240M,...]

import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { projectRoot, setupOrExit } from './setup.mjs';

const { values } = parseArgs({
  options: {
    shape: { type: 'string', default: 'llama-3.2-1b' },
    runs: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '1' },
    sizes: { type: 'string', default: '160M,240M,320M,400M,500M,600M,700M,800M,900M,1000M' },
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

/** points: { mib, measured, predicted }, by rising memory. */
function chart(points, title) {
  const mostX = Math.max(...points.map(({ mib }) => mib)) * 1.05;
  const mostY = Math.max(...points.flatMap(({ measured, predicted }) => [measured, predicted])) * 1.1;
  const x = mib => LEFT + ((WIDTH - LEFT - RIGHT) * mib) / mostX;
  const y = rate => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * rate) / mostY;
  const line = which =>
    points.map(point => `${x(point.mib).toFixed(1)},${y(point[which]).toFixed(1)}`).join(' ');
  const text = (at, below, words, anchor = 'middle') =>
    `<text x="${at.toFixed(1)}" y="${below.toFixed(1)}" text-anchor="${anchor}">${words}</text>`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="13" fill="#444">`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#fff"/>`,
    text(WIDTH / 2, 24, title),
    ...marks(mostY).map(
      rate =>
        `<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y(rate).toFixed(1)}" y2="${y(rate).toFixed(1)}" stroke="#ddd"/>${text(LEFT - 8, y(rate) + 4, rate, 'end')}`,
    ),
    ...marks(mostX).map(mib => text(x(mib), HEIGHT - BOTTOM + 20, mib)),
    text(WIDTH / 2, HEIGHT - 14, '--memory, MiB'),
    `<text transform="translate(18 ${HEIGHT / 2}) rotate(-90)" text-anchor="middle">tokens/s</text>`,
    `<polyline points="${line('predicted')}" fill="none" stroke="#999" stroke-dasharray="5 4"/>`,
    `<polyline points="${line('measured')}" fill="none" stroke="#0a6" stroke-width="2"/>`,
    ...points.map(
      point =>
        `<circle cx="${x(point.mib).toFixed(1)}" cy="${y(point.measured).toFixed(1)}" r="3.5" fill="#0a6"/>`,
    ),
    text(
      LEFT + 12,
      TOP + 8,
      'measured (dots), and predicted from the disk rate and the time of compute (dashed)',
      'start',
    ),
    '</svg>',
    '',
  ].join('\n');
}

await setupOrExit();
const points = [];
for (const size of values.sizes.split(',')) {
  const bench = await measure(size);
  const mib = bench.budgetBytes / 2 ** 20;
  points.push({ mib, measured: bench.tokensPerSecond, predicted: bench.predictedTokensPerSecond });
  process.stdout.write(
    `${size}: ${bench.tokensPerSecond.toFixed(2)} tokens/s, predicted ${bench.predictedTokensPerSecond.toFixed(2)}; ` +
      `${(bench.streamedBytesPerToken / 2 ** 20).toFixed(0)} MiB streamed a token, ${(bench.highWaterBytes / 2 ** 20).toFixed(0)} MiB at the highest\n`,
  );
}
writeFileSync(values.out, chart(points, `${values.shape}, 4 bits, one device: tokens/s against memory`));
process.stdout.write(`${values.out}\n`);
