/** Files of ours that are started by name: workers and child programs. */
import { fileURLToPath } from 'node:url';

/** The file of a program of ours: `.ts` in a checkout, `.js` once published. */
export function programFile(source: URL): string {
  const path = fileURLToPath(source);
  return import.meta.filename.endsWith('.ts') ? path : path.replace(/\.ts$/, '.js');
}
