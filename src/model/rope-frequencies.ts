import type { Rotation } from '../pack/manifest.ts';

const f = Math.fround;

/** What a kind of scaling needs; names as in transformers' rope_parameters. */
export interface RopeParameters {
  readonly type: 'default' | 'linear' | 'dynamic' | 'yarn' | 'longrope' | 'llama3';
  readonly theta: number;
  readonly factor: number;
  /** Positions that the model was trained on before it was stretched. */
  readonly originalContext: number;
  readonly lowFrequencyFactor: number;
  readonly highFrequencyFactor: number;
  /** Overrides what yarn and longrope multiply cosines and sines by. */
  readonly attentionFactor: number | null;
  readonly mscale: number | null;
  readonly mscaleAllDim: number | null;
  readonly betaFast: number;
  readonly betaSlow: number;
  readonly truncate: boolean;
  readonly shortFactors: readonly number[];
  readonly longFactors: readonly number[];
}

/**
 * The rotation of `channels` channels of each head. Computed in float32 with roundings at the same places as `inv_freq` of
 * transformers (modeling_rope_utils.py), so that the angles agree.
 */
export function makeRotation(channels: number, p: RopeParameters): Rotation {
  const plain = plainFrequencies(channels, p.theta);
  switch (p.type) {
    case 'default':
      return rotation(plain);
    case 'linear':
      return rotation(plain.map(frequency => f(frequency / f(p.factor))));
    case 'dynamic': {
      const { theta, factor } = p;
      return rotation(plain, 1, { type: 'dynamic', over: p.originalContext, theta, factor });
    }
    case 'llama3':
      return rotation(plain.map(frequency => llama3Scaled(frequency, p)));
    case 'yarn':
      return rotation(yarnFrequencies(channels, p), yarnMagnitude(p));
    case 'longrope': {
      const frequencies = dividedFrequencies(channels, p.theta, p.longFactors);
      return rotation(dividedFrequencies(channels, p.theta, p.shortFactors), longropeMagnitude(p), {
        type: 'frequencies',
        over: p.originalContext,
        frequencies,
      });
    }
  }
}

const rotation = (
  frequencies: readonly number[],
  magnitude = 1,
  beyond: Rotation['beyond'] = null,
): Rotation => ({ frequencies, magnitude: f(magnitude), beyond });

/** theta ^ (2i / channels), [channels / 2]. */
const wavelengths = (channels: number, theta: number): number[] =>
  Array.from({ length: channels / 2 }, (_, i) => f(f(theta) ** f((2 * i) / channels)));

export const plainFrequencies = (channels: number, theta: number): number[] =>
  wavelengths(channels, theta).map(wavelength => f(1 / wavelength));

const dividedFrequencies = (channels: number, theta: number, factors: readonly number[]): number[] =>
  wavelengths(channels, theta).map((wavelength, i) => f(1 / f(f(factors[i]!) * wavelength)));

/** Llama 3.1 and later: long wavelengths are stretched by `factor`. */
function llama3Scaled(frequency: number, p: RopeParameters): number {
  const context = f(p.originalContext);
  const longest = f(p.originalContext / p.lowFrequencyFactor);
  const shortest = f(p.originalContext / p.highFrequencyFactor);
  const wavelength = f(f(2 * Math.PI) / frequency);
  if (wavelength > longest) return f(frequency / f(p.factor));
  if (wavelength < shortest) return frequency;
  const span = f(p.highFrequencyFactor - p.lowFrequencyFactor);
  const smooth = f(f(f(context / wavelength) - f(p.lowFrequencyFactor)) / span);
  return f(f(f(f(1 - smooth) * frequency) / f(p.factor)) + f(smooth * frequency));
}

/** YaRN (arXiv 2309.00071, section 3.2): stretched and plain frequencies, mixed by a ramp over the channels. */
function yarnFrequencies(channels: number, p: RopeParameters): number[] {
  const dimension = (turns: number) =>
    (channels * Math.log(p.originalContext / (turns * 2 * Math.PI))) / (2 * Math.log(p.theta));
  const [from, to] = [dimension(p.betaFast), dimension(p.betaSlow)];
  const low = Math.max(p.truncate ? Math.floor(from) : from, 0);
  const high = Math.min(p.truncate ? Math.ceil(to) : to, channels - 1);
  const span = f(low === high ? 0.001 : high - low);
  return wavelengths(channels, p.theta).map((wavelength, i) => {
    const ramp = Math.min(1, Math.max(0, f(f(i - f(low)) / span)));
    const plainPart = f(1 - ramp);
    const stretched = f(1 / f(f(p.factor) * wavelength));
    return f(f(stretched * f(1 - plainPart)) + f(f(1 / wavelength) * plainPart));
  });
}

function yarnMagnitude(p: RopeParameters): number {
  if (p.attentionFactor !== null) return p.attentionFactor;
  const scaled = (mscale: number) => (p.factor <= 1 ? 1 : 0.1 * mscale * Math.log(p.factor) + 1);
  return p.mscale && p.mscaleAllDim ? scaled(p.mscale) / scaled(p.mscaleAllDim) : scaled(1);
}

/** LongRoPE (arXiv 2402.13753, section 4.3). */
function longropeMagnitude(p: RopeParameters): number {
  if (p.attentionFactor !== null) return p.attentionFactor;
  return p.factor <= 1 ? 1 : Math.sqrt(1 + Math.log(p.factor) / Math.log(p.originalContext));
}
