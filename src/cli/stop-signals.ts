/** Calls `stop` at the first SIGINT or SIGTERM; a second one ends the process at once. */
export function onStopSignal(stop: () => void): void {
  let stopping = false;
  const onSignal = (): void => {
    if (stopping) process.exit(130);
    stopping = true;
    stop();
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
}
