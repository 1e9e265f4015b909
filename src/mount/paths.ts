/** Paths between Node's strings (UTF-16 of UTF-8) and the core's (one char per byte); our own files. */
import { fileURLToPath } from 'node:url';

export const bytesPath = (path: string): string => Buffer.from(path, 'utf8').toString('latin1');

export const textPath = (bytes: string): string => Buffer.from(bytes, 'latin1').toString('utf8');

/** The file of a program of ours: `.ts` in a checkout, `.js` once published. */
export function programFile(source: URL): string {
  const path = fileURLToPath(source);
  return import.meta.filename.endsWith('.ts') ? path : path.replace(/\.ts$/, '.js');
}
