let code = 0;

/** For commands whose answer can be no, such as an eval: what the process exits with. */
export function setExitCode(value: number): void {
  code = value;
}

export const exitCode = (): number => code;
