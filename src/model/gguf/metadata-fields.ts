import { PotluckError } from '../../errors/errors.ts';
import { invalidCheckpoint } from '../checkpoint-error.ts';
import type { Metadata, MetadataValue } from './header.ts';

/** Typed access to the metadata of a GGUF file. `{arch}.` in a key stands for its general.architecture. */
export class MetadataFields {
  readonly path: string;
  readonly architecture: string;
  readonly #metadata: Metadata;

  /** Throws CHECKPOINT_INVALID where the file does not say its architecture. */
  constructor(metadata: Metadata, path: string) {
    this.path = path;
    this.#metadata = metadata;
    const architecture = metadata.get('general.architecture');
    if (typeof architecture !== 'string')
      throw invalidCheckpoint(path, 'does not say its general.architecture');
    this.architecture = architecture;
  }

  /** A number, the same for all layers. Throws CHECKPOINT_INVALID where there is none. */
  number(key: string): number {
    const value = this.optionalNumber(key);
    if (value === undefined) throw invalidCheckpoint(this.path, `has no ${this.#name(key)}`);
    return value;
  }

  /** Throws UNSUPPORTED_MODEL where layers differ. */
  optionalNumber(key: string): number | undefined {
    const value = this.#value(key);
    if (value === undefined || typeof value === 'number') return value;
    const first = Array.isArray(value) ? (value[0] as unknown) : undefined;
    if (!Array.isArray(value) || typeof first !== 'number') throw this.#wrongType(key);
    if (value.some(each => each !== first))
      throw new PotluckError(
        'UNSUPPORTED_MODEL',
        `${this.path}: ${this.#name(key)} differs from layer to layer. Use a model whose layers are alike.`,
      );
    return first;
  }

  optionalString(key: string): string | undefined {
    return this.#typed(key, (value): value is string => typeof value === 'string');
  }

  optionalBoolean(key: string): boolean | undefined {
    return this.#typed(key, (value): value is boolean => typeof value === 'boolean');
  }

  optionalStrings(key: string): readonly string[] | undefined {
    return this.#typed(key, (value): value is readonly string[] => isListOf(value, 'string'));
  }

  optionalBooleans(key: string): readonly boolean[] | undefined {
    return this.#typed(key, (value): value is readonly boolean[] => isListOf(value, 'boolean'));
  }

  optionalNumbers(key: string): readonly number[] | undefined {
    return this.#typed(key, (value): value is readonly number[] => isListOf(value, 'number'));
  }

  #typed<T extends MetadataValue>(key: string, is: (value: MetadataValue) => value is T): T | undefined {
    const value = this.#value(key);
    if (value === undefined) return undefined;
    if (!is(value)) throw this.#wrongType(key);
    return value;
  }

  #value(key: string): MetadataValue | undefined {
    return this.#metadata.get(this.#name(key));
  }

  #name(key: string): string {
    return key.replace('{arch}', this.architecture);
  }

  #wrongType(key: string): PotluckError {
    return invalidCheckpoint(this.path, `${this.#name(key)} has a value of the wrong type`);
  }
}

const isListOf = (value: MetadataValue, type: string): boolean =>
  Array.isArray(value) && (value as readonly unknown[]).every(each => typeof each === type);
