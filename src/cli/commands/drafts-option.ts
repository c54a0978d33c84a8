import { Option } from 'commander';

/** The switch of drafts: `drafts` is true unless it is there. */
export function draftsOption(): Option {
  return new Option(
    '--no-drafts',
    'do not guess at the next tokens from the text so far (answers are the same with and without)',
  );
}
