/**
 * Where a row's time goes in palimpsest: requests of each kind and host calls of each kind, per
 * operation. Not a measurement: strace slows everything it looks at, so its counts are to be trusted
 * and its times are not. A CPU profile is written where NODE_OPTIONS says so.
 *
 * node bench/main.ts profile ROW[,ROW] [--passthrough]
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './host.ts';
import { MICRO_ROWS } from './rows.ts';
import { cacheDirectory, compiledLoad, lowerTree } from './sources.ts';
import { palimpsestProgram, Subject } from './subjects.ts';

/** fuse(4)'s numbers; only those that a row can cause. */
const OPCODES: Record<number, string> = {
  1: 'LOOKUP',
  2: 'FORGET',
  3: 'GETATTR',
  4: 'SETATTR',
  5: 'READLINK',
  8: 'MKNOD',
  9: 'MKDIR',
  10: 'UNLINK',
  11: 'RMDIR',
  12: 'RENAME',
  14: 'OPEN',
  15: 'READ',
  16: 'WRITE',
  17: 'STATFS',
  18: 'RELEASE',
  20: 'FSYNC',
  21: 'SETXATTR',
  22: 'GETXATTR',
  23: 'LISTXATTR',
  25: 'FLUSH',
  26: 'INIT',
  27: 'OPENDIR',
  28: 'READDIR',
  29: 'RELEASEDIR',
  30: 'FSYNCDIR',
  34: 'ACCESS',
  35: 'CREATE',
  36: 'INTERRUPT',
  42: 'BATCH_FORGET',
  43: 'FALLOCATE',
  44: 'READDIRPLUS',
  45: 'RENAME2',
  46: 'LSEEK',
  47: 'COPY_FILE_RANGE',
  51: 'TMPFILE',
  52: 'STATX',
};

const OPERATIONS = 200;
const ATTACH_SECONDS = '1';

export function profile(rows: readonly string[], passthrough: boolean): void {
  const load = compiledLoad();
  const base = mkdtempSync(join(cacheDirectory(), 'profile-'));
  const place = { base, lowers: [lowerTree(load)] };
  const subject = new Subject(passthrough ? 'palimpsest-passthrough' : 'palimpsest', place);
  try {
    for (const row of MICRO_ROWS.filter(({ id }) => rows.includes(id))) {
      subject.remount('fresh');
      const argv = [load, row.id, subject.mountPoint, '--n', String(OPERATIONS), '--ms', '200'];
      if (row.mount === 'as-is') subject.run([...argv, '--tag', 'warm']);
      const before = requestCounts(subject);
      const plain = subject.run([...argv, '--tag', 'plain']).stdout.trim();
      const after = requestCounts(subject);
      if (row.mount !== 'as-is') subject.remount('fresh');
      const calls = traced(subject, base, () => subject.run([...argv, '--tag', 'traced']));
      print(row.id, plain, difference(before, after), calls);
    }
  } finally {
    subject.unmount();
    rmSync(base, { recursive: true, force: true });
  }
}

function print(row: string, line: string, requests: Map<string, number>, calls: string): void {
  const [ns, operations] = line.split(' ').map(Number);
  console.log(
    `\n## ${row}: ${((ns ?? 0) / 1000).toFixed(2)} µs, ${operations} operations (preparation is counted too)`,
  );
  console.log(`requests: ${[...requests].map(([name, n]) => `${name} ${n}`).join(', ')}`);
  console.log(calls);
}

function requestCounts(subject: Subject): Map<string, number> {
  const argv = [process.execPath, palimpsestProgram, 'status', '--json', subject.mountPoint];
  const status = JSON.parse(subject.run(argv).stdout) as {
    daemon: { requests: { byOpcode: Record<string, number> } };
  };
  return new Map(Object.entries(status.daemon.requests.byOpcode).map(([opcode, n]) => [opcode, n]));
}

function difference(before: Map<string, number>, after: Map<string, number>): Map<string, number> {
  const more = new Map<string, number>();
  for (const [opcode, n] of after) {
    const delta = n - (before.get(opcode) ?? 0);
    if (delta !== 0) more.set(OPCODES[Number(opcode)] ?? opcode, delta);
  }
  return more;
}

/** The daemon's system calls while `action` runs, as strace counts them, most frequent first. */
function traced(subject: Subject, base: string, action: () => void): string {
  const out = join(base, 'strace');
  const pids = subject.daemons.flatMap((pid) => ['-p', String(pid)]);
  const strace = spawn('strace', ['-f', '-c', '-w', '-S', 'calls', '-o', out, ...pids], {
    stdio: 'ignore',
  });
  run(['sleep', ATTACH_SECONDS]);
  action();
  if (strace.pid !== undefined)
    run([
      'sh',
      '-c',
      'kill -INT "$1"; while [ -e "/proc/$1/exe" ]; do sleep 0.05; done',
      'sh',
      String(strace.pid),
    ]);
  return readFileSync(out, 'latin1')
    .split('\n')
    .slice(2, 22)
    .map((line) => line.trimEnd())
    .join('\n');
}
