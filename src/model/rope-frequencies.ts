/** Scaling of Llama 3.1 and later: long wavelengths are stretched by `factor`. */
export interface RopeScaling {
  readonly factor: number;
  readonly lowFrequencyFactor: number;
  readonly highFrequencyFactor: number;
  readonly originalContext: number;
}

const f = Math.fround;

/**
 * Radians per position of each rotated pair; [headDim / 2]. Computed in float32 with roundings at the same places as
 * `inv_freq` of transformers (modeling_rope_utils.py), so that the angles agree.
 */
export function ropeFrequencies(headDim: number, theta: number, scaling?: RopeScaling): number[] {
  const base = f(theta);
  return Array.from({ length: headDim / 2 }, (_, i) => {
    const frequency = f(1 / f(base ** f((2 * i) / headDim)));
    return scaling ? scaled(frequency, scaling) : frequency;
  });
}

function scaled(frequency: number, s: RopeScaling): number {
  const context = f(s.originalContext);
  const longest = f(s.originalContext / s.lowFrequencyFactor);
  const shortest = f(s.originalContext / s.highFrequencyFactor);
  const wavelength = f(f(2 * Math.PI) / frequency);
  if (wavelength > longest) return f(frequency / f(s.factor));
  if (wavelength < shortest) return frequency;
  const span = f(s.highFrequencyFactor - s.lowFrequencyFactor);
  const smooth = f(f(f(context / wavelength) - f(s.lowFrequencyFactor)) / span);
  return f(f(f(f(1 - smooth) * frequency) / f(s.factor)) + f(smooth * frequency));
}
