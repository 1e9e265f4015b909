/** Freeing what is not reachable, and giving it to the host, at a moment that the engine chooses. */
import { trimMalloc } from '../sys/memory.ts';

/**
 * Stops this thread for about half a millisecond per thousand inodes that are alive. The flavor is the
 * one that gives pages back: after a regular collection they stay, for what might be allocated next.
 * Without `gc` (start.ts asks V8 for it) it is left to V8.
 */
export function collectGarbage(): void {
  globalThis.gc?.({ type: 'major', execution: 'sync', flavor: 'last-resort' });
  trimMalloc();
}
