import { createEngine, type Engine } from '../../engine/engine.ts';
import { GREEDY } from '../../engine/generate.ts';
import { PotluckError } from '../../errors/errors.ts';
import { samples } from './alternate.ts';
import type { Lane } from './resident-model.ts';

/** Whole passes of a lane, timed. */

/** Token ids that every vocabulary has; another `salt` gives another beginning, so that nothing can be reused. */
export const promptOf = (tokens: number, salt: number): number[] =>
  Array.from({ length: tokens }, (_, i) => 10 + ((salt * 37 + i * 101) % 389));

export const engineOf = (lane: Lane): Engine =>
  createEngine({
    runner: lane.runner,
    logitMath: lane.logitMath,
    limits: { maxSequences: 1, maxQueue: 1 },
    defer: setImmediate,
  });

/** Seconds a token of a greedy answer of `tokens` tokens, as the engine gives it: the median of all but the first. */
export async function decodeSeconds(engine: Engine, tokens: number, salt: number): Promise<number> {
  const request = {
    prompt: promptOf(8, salt),
    generated: [],
    maxTokens: tokens + 1,
    stopTokens: [],
    sampling: GREEDY,
  };
  const times: number[] = [];
  for await (const event of engine.generate(request, new AbortController().signal))
    if (event.type === 'token') times.push(performance.now());
  return samples(times.slice(1).map((time, i) => time - times[i]!)).median / 1000;
}

/** Seconds of a prompt from position 0, in as large passes as the engine makes; logits of the last token. */
export async function promptSeconds(
  lane: Lane,
  pages: Int32Array,
  tokens: number,
  salt: number,
): Promise<number> {
  const prompt = promptOf(tokens, salt);
  const { maxTokens } = lane.runner;
  const before = performance.now();
  for (let start = 0; start < tokens; start += maxTokens) {
    const part = prompt.slice(start, start + maxTokens);
    const logitsAt = start + part.length === tokens ? [part.length - 1] : [];
    await lane.runner.run([{ pages, length: tokens, start, tokens: part, logitsAt }]);
  }
  return (performance.now() - before) / 1000;
}

/** Passes one behind the other, as an answer makes them. */
const PASSES = 5;

/** Seconds of a pass of `tokens` tokens of a sequence that has `start` positions, logits of all of them: the median of several. */
export async function passSeconds(
  lane: Lane,
  pages: Int32Array,
  start: number,
  tokens: number,
): Promise<number> {
  const times: number[] = [];
  while (times.length < PASSES) times.push(await onePassSeconds(lane, pages, start, tokens));
  return samples(times).median;
}

async function onePassSeconds(lane: Lane, pages: Int32Array, start: number, tokens: number): Promise<number> {
  const before = performance.now();
  const rows = await lane.runner.run([
    {
      pages,
      length: start + tokens,
      start,
      tokens: promptOf(tokens, start),
      logitsAt: Array.from({ length: tokens }, (_, i) => i),
    },
  ]);
  const seconds = (performance.now() - before) / 1000;
  if (rows.length !== tokens || !rows.every(row => Number.isFinite(row[0])))
    throw new PotluckError('INTERNAL', 'A pass of a bench gave logits that are not finite numbers.');
  return seconds;
}
