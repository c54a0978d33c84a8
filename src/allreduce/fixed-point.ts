/**
 * target[i] += source[i] for i < count, wrapping at 32 bits as the native code does.
 * Both [>= count] int32. Integer addition has no order, so the sum of many does not depend on who came first.
 */
export function addInto(target: Int32Array, source: Int32Array, count: number): void {
  const whole = count & ~3;
  let i = 0;
  for (; i < whole; i += 4) {
    target[i] = (target[i]! + source[i]!) | 0;
    target[i + 1] = (target[i + 1]! + source[i + 1]!) | 0;
    target[i + 2] = (target[i + 2]! + source[i + 2]!) | 0;
    target[i + 3] = (target[i + 3]! + source[i + 3]!) | 0;
  }
  for (; i < count; i++) target[i] = (target[i]! + source[i]!) | 0;
}
