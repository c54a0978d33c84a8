import { availableParallelism } from 'node:os';
import { MOST_THREADS } from '../kernels/backend.ts';

/** Threads that compute where nothing is said: one for each core. */
export const defaultThreads = (): number => Math.min(MOST_THREADS, availableParallelism());
