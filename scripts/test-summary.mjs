// Counts of tests, from the report that vitest writes as JSON.

/**
 * A test file that broke before it had tests counts as one failed test, and so does each failed check. Where vitest
 * failed and no test did (an error outside of tests), that counts as one too.
 * @param {{ testResults: { status: string, assertionResults: { status: string }[] }[] } | null} report null: vitest wrote none
 * @param {number} exitCode of vitest
 * @param {number} failedChecks format, lint and type checks that failed
 */
export function sumUp(report, exitCode, failedChecks) {
  let [passed, failed, skipped] = [0, 0, 0];
  for (const { status, assertionResults } of report?.testResults ?? []) {
    const failedBefore = failed;
    for (const test of assertionResults) {
      if (test.status === 'passed') passed++;
      else if (test.status === 'failed') failed++;
      else skipped++;
    }
    if (status === 'failed' && failed === failedBefore) failed++;
  }
  if (exitCode !== 0 && failed === 0) failed = 1;
  return { passed, failed: failed + failedChecks, skipped };
}
