/**
 * Whether the next fsync is made on the spot or on another thread.
 *
 * On another thread it stops nobody, but going there and back costs two wake-ups, which is as much as
 * the sync of a small file takes on a fast disk. What the disk will take is told by what it took last:
 *
 * Y1. On the spot if the last sync was short and little was written since. The first goes to a thread.
 * Y2. A sync that turns out long has stopped others once; those after it go to a thread, until one of
 *     them was short.
 */
import { SYNC_ON_THE_SPOT_BYTES, SYNC_ON_THE_SPOT_NSEC } from './limits.ts';

export class SyncPace {
  #lastNs = Infinity;
  #writtenBytes = 0;

  wrote(bytes: number): void {
    this.#writtenBytes += bytes;
  }

  get isShort(): boolean {
    return this.#lastNs <= SYNC_ON_THE_SPOT_NSEC && this.#writtenBytes <= SYNC_ON_THE_SPOT_BYTES;
  }

  /** A sync begins: what is written from now on is for the next one. */
  begin(): void {
    this.#writtenBytes = 0;
  }

  /** It took so long, whatever came of it. */
  took(ns: number): void {
    this.#lastNs = ns;
  }
}
