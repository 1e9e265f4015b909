/**
 * Worker of session.test.ts: mounts a MemoryFs, serves it, and tells what it counted. Commands come as
 * names in files, for the engine thread hears no messages: what a file called `.slow-fsync` says.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { runSync } from '../../kernel/task.ts';
import type { Name } from '../../vfs/inode-operations.ts';
import { mountFuse } from '../mount.ts';
import { Session } from '../session.ts';
import { Gate, MemoryFs, MemoryInode } from './memory-fs.ts';

const fs = new MemoryFs();
const fd = mountFuse({
  target: workerData.target,
  source: 'test',
  subtype: 'palimpsest',
  options: {},
});

let gate: Gate | undefined;
/** The name of a lookup is a command: it reaches the engine as a request. */
const commands: Record<string, () => void> = {
  '.hold-fsync': () => fs.gates.set('fsync', (gate = new Gate())),
  '.open-gate': () => gate!.open(),
  '.add-beneath': () => {
    runSync(fs.root.create('beneath' as Name, 0o644, { uid: 0, gid: 0, umask: 0, pid: 0 }));
    session.invalidateEntry(fs.root, 'beneath' as Name);
  },
  '.grow-beneath': () => {
    const file = fs.root.children.get('beneath' as Name) as MemoryInode;
    file.stat.mode = 0o100600;
    session.invalidateAttributes(file);
  },
};
const plainLookup = fs.root.lookup.bind(fs.root);
fs.root.lookup = function* lookup(name) {
  commands[name]?.();
  return yield* plainLookup(name);
};

const session: Session = new Session(fs, {
  fd,
  dataMode: workerData.dataMode,
  readOnly: false,
  notify: (record) => parentPort!.postMessage({ kind: 'notify', fd, record }),
  complain: (line) => parentPort!.postMessage({ kind: 'complaint', line }),
  onReady: () => parentPort!.postMessage({ kind: 'ready' }),
});
await session.run();
parentPort!.postMessage({ kind: 'end', counters: session.counters, forgotten: fs.root.forgotten });
