import { PotluckError } from '../errors/errors.ts';
import type { Architecture } from './architecture.ts';
import { gemma2, gemma3, gemma3Multimodal } from './architecture-gemma.ts';
import { granite, graniteMoe, graniteMoeHybrid, graniteMoeShared } from './architecture-granite.ts';
import { llama } from './architecture-llama.ts';
import { mistral, mixtral } from './architecture-mistral.ts';
import { olmo2, olmo3 } from './architecture-olmo.ts';
import { phi3 } from './architecture-phi.ts';
import { qwen2, qwen3, qwen3Moe } from './architecture-qwen.ts';
import { smolLm3 } from './architecture-smollm.ts';

export const ARCHITECTURES: readonly Architecture[] = [
  llama,
  mistral,
  mixtral,
  qwen2,
  qwen3,
  qwen3Moe,
  gemma2,
  gemma3,
  gemma3Multimodal,
  phi3,
  smolLm3,
  olmo2,
  olmo3,
  granite,
  graniteMoe,
  graniteMoeShared,
  graniteMoeHybrid,
];

/** The architecture that a config.json names. Throws UNSUPPORTED_MODEL. */
export function findArchitecture(config: unknown, file: string): Architecture {
  const top = typeof config === 'object' && config !== null ? (config as Record<string, unknown>) : {};
  const classes = Array.isArray(top.architectures) ? top.architectures : [];
  const found = ARCHITECTURES.find(
    a => top.model_type === a.modelType && (classes.length === 0 || classes.includes(a.className)),
  );
  if (found) return found;
  const named = classes.length > 0 ? classes.join(', ') : 'no class';
  const type = typeof top.model_type === 'string' ? top.model_type : 'none';
  throw new PotluckError(
    'UNSUPPORTED_MODEL',
    `${file}: the architecture is ${named.slice(0, 200)} (model_type ${type.slice(0, 100)}). Supported: ${ARCHITECTURES.map(a => `${a.className} (model_type ${a.modelType})`).join(', ')}.`,
  );
}
