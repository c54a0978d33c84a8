import type { OrtModule } from '../../src/kernels/onnx-product.ts';

/** onnxruntime-node, or null where this machine has it not: it is an optional dependency. */
export const ort: OrtModule | null = await import('onnxruntime-node').catch((error: Error) => {
  console.warn(`onnxruntime-node does not load, its tests are skipped: ${error.message}`);
  return null;
});
