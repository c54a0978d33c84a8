import { formatBytes, textTable } from '../text-table.ts';
import type { Measurement } from './alternate.ts';
import type { DecodeBench } from './bench-decode.ts';
import type { KernelBench } from './bench-kernels.ts';
import type { PromptBench } from './bench-prompt.ts';

/** What the benches of passes print. */

export function decodeText(bench: DecodeBench): string {
  return [
    `${heading(bench)}, decode: ${formatBytes(bench.weightBytesPerToken)} of weights a token, memory gives ${formatBytes(bench.readRate)}/s`,
    ...measurementLines(bench),
    ...saturationLines(bench),
  ].join('\n');
}

export function promptText(bench: PromptBench): string {
  return [
    `${heading(bench)}, prompt of ${bench.tokens} tokens: ${bench.tokensPerSecond.toFixed(1)} tokens/s`,
    ...measurementLines(bench),
    ...saturationLines(bench),
  ].join('\n');
}

export function kernelsText(bench: KernelBench): string {
  const rows = bench.rows.map(({ what, measured, limit, ratio, unit }) => [
    what,
    formatRate(measured),
    formatRate(limit),
    unit,
    ratio.toFixed(3),
  ]);
  return [
    heading(bench),
    ...textTable([['what', 'measured', 'limit', 'unit', 'ratio'], ...rows]),
    ...bench.skipped.map(line => `skipped: ${line}`),
  ].join('\n');
}

const heading = ({ model, kernel, threads }: { model: string; kernel: string; threads: number }): string =>
  `${model}, ${kernel}, ${threads} ${threads === 1 ? 'thread' : 'threads'}`;

function measurementLines({ measured, limit, ratio, unit, spread }: Measurement): string[] {
  const row = (what: string, value: number, [low, high]: readonly [number, number]) => [
    what,
    formatRate(value),
    unit,
    `half of the runs from ${formatRate(low)} to ${formatRate(high)}`,
  ];
  return textTable([
    ['', 'median', 'unit', ''],
    row('measured', measured, spread.measured),
    row('limit', limit, spread.limit),
    ['ratio', ratio.toFixed(3), '', ''],
  ]);
}

/** 0.123, 12.3, 1230, 12.3 G. */
function formatRate(value: number): string {
  if (value >= 1e9) return `${(value / 1e9).toPrecision(3)} G`;
  if (value >= 1e6) return `${(value / 1e6).toPrecision(3)} M`;
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

const saturationLines = ({ saturated }: { saturated: number }): string[] =>
  saturated === 0
    ? []
    : [`${saturated} tile outputs were too large for their range: the weights are not sound.`];
