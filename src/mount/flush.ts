/**
 * Get what programs wrote through a mount out of the kernel's page cache and to the daemon.
 *
 * syncfs(2) on FUSE starts the write-back of every dirty page but does not wait for the answers, so
 * the connection's own count of requests in flight is watched until it is zero.
 */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { Errno, errnoName } from '../abi/errno.ts';
import { runAsync } from '../kernel/task.ts';
import { syncfsWait } from '../sys/io.ts';

const WAITING_POLL_MS = 2;
/** A branch that takes longer to answer is not waited for: the caller may ask again. */
const WAITING_MS_MAX = 60_000;

/** The number in /sys/fs/fuse/connections: the minor of the anonymous device. */
function waitingPath(target: string): string {
  const { dev } = statSync(target);
  const minor = (dev & 0xff) | ((dev >>> 12) & 0xfff00);
  return `/sys/fs/fuse/connections/${minor}/waiting`;
}

/** Called from a thread that does not serve the mount. Errors: Error with the errno's name. */
export async function flushMount(target: string): Promise<void> {
  const directory = await open(target, 'r');
  try {
    const result = await runAsync(syncfsWait(directory.fd));
    if (result < 0) {
      const error: NodeJS.ErrnoException = new Error(`syncfs ${target}: ${errnoName(-result)}`);
      error.code = errnoName(-result);
      throw error;
    }
  } finally {
    await directory.close();
  }
  const waiting = waitingPath(target);
  if (!existsSync(waiting)) return;
  for (let waited = 0; waited < WAITING_MS_MAX; waited += WAITING_POLL_MS) {
    if (Number(readFileSync(waiting, 'latin1')) === 0) return;
    await sleep(WAITING_POLL_MS);
  }
  throw new Error(`${target}: still writing back (${errnoName(Errno.ETIMEDOUT)})`);
}
