/** The door on a real mount: this thread is the client, a worker is the daemon. */
import assert from 'node:assert/strict';
import { execFile, execFileSync, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import { Opcode } from './abi.ts';
import type { DoorCounters } from './door.ts';

const run = promisify(execFile);
const mountable = process.getuid?.() === 0 && fs.existsSync('/dev/fuse');
const hasPython = spawnSync('python3', ['-V']).status === 0;
const options = mountable ? {} : { skip: 'needs root and /dev/fuse' };

class Mounted {
  readonly path = fs.mkdtempSync(join(tmpdir(), 'palimpsest-door-'));
  readonly complaints: string[] = [];
  readonly #worker: Worker;
  readonly #ended: Promise<DoorCounters>;

  static async at(context: TestContext, dataMode = 'writeback'): Promise<Mounted> {
    const mounted = new Mounted(dataMode);
    context.after(() => mounted.clean());
    await mounted.#until('ready');
    return mounted;
  }

  constructor(dataMode: string) {
    this.#worker = new Worker(new URL('./testing/serve.ts', import.meta.url), {
      workerData: { target: this.path, dataMode },
    });
    this.#worker.on('message', (message) => {
      if (message.kind === 'complaint') this.complaints.push(message.line);
      // ENOENT: the kernel does not know it. Not on this thread's time: it is the client, too.
      if (message.kind === 'notify') fs.write(message.fd, message.record, () => {});
    });
    this.#ended = this.#until('end').then((message) => message.counters);
  }

  #until(kind: string): Promise<{ counters: DoorCounters }> {
    return new Promise((resolve, reject) => {
      this.#worker.on('message', (message) => {
        if (message.kind === kind) resolve(message);
      });
      this.#worker.on('error', reject);
    });
  }

  at(name: string): string {
    return join(this.path, name);
  }

  /** A command for the worker: see testing/serve.ts. */
  async command(name: string): Promise<void> {
    await run('test', ['!', '-e', this.at(name)]);
  }

  async unmount(): Promise<DoorCounters> {
    await run('umount', [this.path]);
    return await this.#ended;
  }

  async clean(): Promise<void> {
    try {
      execFileSync('umount', ['-l', this.path], { stdio: 'ignore' });
    } catch (error) {
      // Status 32: it is not mounted any more.
      if ((error as { status?: number }).status !== 32) throw error;
    }
    await this.#worker.terminate();
    fs.rmdirSync(this.path);
  }
}

test('a mount serves names, data, links and attributes', options, async (context) => {
  const mounted = await Mounted.at(context);
  await run(
    'sh',
    [
      '-ec',
      `
    echo hello > a; test "$(cat a)" = hello; mkdir d; mv a d/b; test "$(ls d)" = b
    ln d/b c; test "$(stat -c %h c)" = 2; ln -s d/b l; test "$(readlink l)" = d/b; test "$(cat l)" = hello
    chmod 600 c; test "$(stat -c %a d/b)" = 600; touch -d @1000000000.5 c; test "$(stat -c %Y c)" = 1000000000
    truncate -s 3 c; test "$(cat c)" = hel; echo more >> c; test "$(cat c)" = helmore
    test "$(ls -a | tr '\\n' ' ')" = ". .. c d l "; rm -r d; rm c l; test -z "$(ls)"
  `,
    ],
    { cwd: mounted.path },
  );
  const counters = await mounted.unmount();
  assert.deepEqual(mounted.complaints, []);
  assert.equal(
    counters.bugs + counters.illegalReplies + counters.refusedReplies + counters.malformed,
    0,
  );
});

test('what is known costs no request', options, async (context) => {
  const mounted = await Mounted.at(context);
  await run(
    'sh',
    [
      '-ec',
      `
    echo hello > a; cat a; stat a; test ! -e none
    for i in $(seq 40); do cat a; stat a; test ! -e none; ls; done
  `,
    ],
    { cwd: mounted.path },
  );
  const { byOpcode } = await mounted.unmount();
  assert.equal(byOpcode[Opcode.OPEN], 1, 'OPEN is answered ENOSYS once');
  assert.equal(byOpcode[Opcode.OPENDIR], 1);
  assert.equal(byOpcode[Opcode.FLUSH], 1);
  assert.equal(byOpcode[Opcode.RELEASE], 0);
  // The kernel may drop caches when it likes, but not in most of 40 turns.
  assert.ok(byOpcode[Opcode.READ]! < 20, 'the page cache has it');
  assert.ok(byOpcode[Opcode.LOOKUP]! < 20, 'a and none are looked up once each');
  assert.ok(
    byOpcode[Opcode.READDIR]! + byOpcode[Opcode.READDIRPLUS]! < 20,
    'the kernel keeps the listing',
  );
});

test('a request that waits stops no other, and ends', options, async (context) => {
  const mounted = await Mounted.at(context);
  fs.writeFileSync(mounted.at('a'), 'x');
  await mounted.command('.hold-fsync');
  const synced = run('sync', [mounted.at('a')]);
  let ended = false;
  const after = synced.finally(() => (ended = true));
  for (let i = 0; i < 20; i++) {
    await run('sh', ['-ec', `echo ${i} > f${i}; test "$(cat f${i})" = ${i}`], {
      cwd: mounted.path,
    });
  }
  assert.equal(ended, false);
  await mounted.command('.open-gate');
  await after;
  const counters = await mounted.unmount();
  assert.ok(counters.parked >= 1);
  assert.equal(counters.byOpcode[Opcode.FSYNC], 1);
});

test('changes beneath show when they are told', options, async (context) => {
  const mounted = await Mounted.at(context);
  const shows = async (script: string): Promise<void> => {
    for (let attempt = 0; ; attempt++) {
      try {
        await run('sh', ['-ec', script], { cwd: mounted.path });
        return;
      } catch (error) {
        if (attempt === 100) throw error;
      }
    }
  };
  await run('test', ['!', '-e', mounted.at('beneath')]);
  await mounted.command('.add-beneath');
  await shows('test -e beneath');
  await run('sh', ['-ec', 'test "$(stat -c %a beneath)" = 644'], { cwd: mounted.path });
  await mounted.command('.grow-beneath');
  await shows('test "$(stat -c %a beneath)" = 600');
  await mounted.unmount();
});

const pythonOptions = hasPython ? options : { skip: 'needs python3' };

test(
  'data that is only in the page cache is found by SEEK_DATA',
  pythonOptions,
  async (context) => {
    const mounted = await Mounted.at(context);
    // Still open for writing: closing would write the data out.
    await run('python3', [
      '-c',
      `
import os, sys
f = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.pwrite(f, b'x' * 5000, 8192)
assert os.lseek(f, 8192, os.SEEK_DATA) == 8192
assert os.lseek(f, 8192, os.SEEK_HOLE) == 8192 + 5000
`,
      mounted.at('f'),
    ]);
    const counters = await mounted.unmount();
    assert.ok(counters.byOpcode[Opcode.LSEEK]! >= 2);
  },
);

for (const dataMode of ['writethrough', 'passthrough']) {
  test(`the mode ${dataMode} serves files, too`, options, async (context) => {
    const mounted = await Mounted.at(context, dataMode);
    await run('sh', ['-ec', 'echo one > a; echo two >> a; test "$(cat a)" = "one\ntwo"; rm a'], {
      cwd: mounted.path,
    });
    const counters = await mounted.unmount();
    assert.equal(counters.bugs + counters.illegalReplies + counters.refusedReplies, 0);
  });
}

test('a listing of 20,000 names is whole', options, async (context) => {
  const mounted = await Mounted.at(context, 'writeback');
  const script =
    'mkdir d; cd d; seq -f name-%g 20000 | xargs touch; test "$(ls -f | sort -u | wc -l)" = 20002; rm -r ../d';
  await run('sh', ['-ec', script], { cwd: mounted.path });
  await mounted.unmount();
});
