/** Adds the partial sums of all devices of the plan. */
export interface Allreduce {
  /** True where this device is the only one: `sum` then has nothing to do. */
  readonly alone: boolean;
  /**
   * Replaces `partial` ([tokens * width] int32, fixed point) by its sum over all devices.
   * `step` counts the half layers of the pass from 0. Rejects with DEVICE_LOST, DEADLINE or PROTOCOL.
   */
  sum(step: number, partial: Int32Array): Promise<void>;
}
