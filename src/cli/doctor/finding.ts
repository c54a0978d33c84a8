/** What one check found. */
export interface Finding {
  readonly level: 'ok' | 'warn' | 'fail';
  /** What was looked at and what is the case. */
  readonly text: string;
  /** What to do about it; empty where there is nothing to do. */
  readonly advice: string;
}

export const ok = (text: string): Finding => ({ level: 'ok', text, advice: '' });
export const warn = (text: string, advice: string): Finding => ({ level: 'warn', text, advice });
export const fail = (text: string, advice: string): Finding => ({ level: 'fail', text, advice });

export const findingText = ({ level, text, advice }: Finding): string =>
  `${level.padEnd(4)}  ${text}${advice === '' ? '' : `. ${advice}`}`;
