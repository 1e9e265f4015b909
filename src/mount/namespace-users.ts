/** Who lives in this mount namespace: for `run`, whose view must outlast everyone who sees it. */
import { readdirSync, readlinkSync } from 'node:fs';
import { isAlive, readRecords } from './state.ts';

function namespaceOf(pid: string): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/mnt`);
  } catch (error) {
    // Gone, or not ours to look at: then it is not in a namespace that we made.
    if ((error as NodeJS.ErrnoException).code === undefined) throw error;
    return undefined;
  }
}

/** Ids of the processes in our mount namespace, without this one and the daemons of its mounts. */
export function namespaceUsers(): number[] {
  const ours = namespaceOf('self');
  const daemons = new Set(
    readRecords()
      .filter((record) => isAlive(record))
      .map((record) => record.pid),
  );
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && namespaceOf(name) === ours)
    .map(Number)
    .filter((pid) => pid !== process.pid && !daemons.has(pid));
}
