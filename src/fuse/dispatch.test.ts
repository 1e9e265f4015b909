import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Errno } from '../abi/errno.ts';
import { FsError } from '../kernel/error.ts';
import { start, type Task, taskOf } from '../kernel/task.ts';
import {
  BATCH_FORGET_IN,
  ENTRY_OUT,
  ATTR,
  ATTR_OUT,
  FATTR_CTIME,
  FATTR_MODE,
  FATTR_MTIME,
  FUSE_WRITE_CACHE,
  IN_HEADER,
  InitBit,
  Opcode,
  READ_IN,
  SETATTR_IN,
  WRITE_IN,
} from './abi.ts';
import { INIT_CHOICES } from './init.ts';
import { dispatch, errorOutcome, finishReply, takeBack } from './dispatch.ts';
import { Door } from './door.ts';
import { OPERATIONS } from './opcodes.ts';
import { errorField, REPLY_BODY, Request } from './request.ts';
import { MemoryFs } from './testing/memory-fs.ts';

interface Reply {
  error: number;
  body: DataView;
  bytes: number;
}

class Bench {
  readonly fs = new MemoryFs();
  readonly complaints: string[] = [];
  readonly notes: Uint8Array[] = [];
  readonly door = new Door(this.fs, {
    dataMode: 'writeback',
    readOnly: false,
    hashKey: [1, 2],
    complain: (line) => this.complaints.push(line),
    notify: (record) => this.notes.push(record),
    notifyAndWait: (record) => this.flush(record),
  });
  readonly request = new Request();

  *flush(record: Uint8Array): Task<number> {
    this.notes.push(record);
    return record.length;
  }

  put(
    opcode: number,
    nodeid: number,
    body: Uint8Array,
    length = IN_HEADER.bytes + body.length,
  ): void {
    const { bytes } = this.request.request;
    bytes.fill(0xee, 0, 65_536);
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    view.setUint32(0, length, true);
    view.setUint32(4, opcode, true);
    view.setBigUint64(8, 42n, true);
    view.setBigUint64(16, BigInt(nodeid), true);
    bytes.fill(0, 24, 40);
    bytes.set(body, 40);
    this.request.arrived(IN_HEADER.bytes + body.length);
  }

  serve(opcode: number, nodeid: number, body: Uint8Array, length?: number): Reply {
    this.put(opcode, nodeid, body, length);
    let outcome: unknown = dispatch(this.door, this.request);
    if (typeof outcome === 'object') {
      const task = outcome as ReturnType<typeof dispatch>;
      assert.equal(typeof task, 'object');
      outcome = undefined;
      start(task as Exclude<typeof task, number>, {
        done: (value) => (outcome = value),
        failed: (error) => (outcome = errorOutcome(this.door, this.request, error)),
      });
      assert.notEqual(outcome, undefined, 'ends on the spot');
    }
    finishReply(this.door, this.request, outcome);
    const { buffer, byteOffset } = this.request.reply.bytes;
    const view = new DataView(buffer, byteOffset);
    assert.equal(view.getUint32(0, true), this.request.replyLength);
    return {
      error: view.getInt32(4, true),
      body: new DataView(buffer, byteOffset + REPLY_BODY),
      bytes: view.getUint32(0, true) - REPLY_BODY,
    };
  }

  name(opcode: number, nodeid: number, head: number, name: string): Reply {
    return this.serve(
      opcode,
      nodeid,
      Buffer.concat([Buffer.alloc(head), Buffer.from(`${name}\0`, 'latin1')]),
    );
  }
}

function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

test('only integers from -511 to 0 are error fields', () => {
  for (const bad of [524_288, 1, -512, NaN, 1.5, -1.5, undefined, null, '0', -Infinity, 5n]) {
    assert.equal(errorField(bad), undefined, String(bad));
  }
  for (const good of [0, -1, -511]) assert.equal(errorField(good), good);
  assert.ok(Object.is(errorField(-0), 0));
});

test('what a handler gives wrongly becomes EIO with a complaint, through every opcode', () => {
  const bench = new Bench();
  const wrong = [524_288, 1, -512, NaN, 1.5, undefined];
  OPERATIONS.forEach((operation, opcode) => {
    if (operation === undefined) return;
    for (const outcome of wrong) {
      bench.put(opcode, 1, new Uint8Array(0));
      bench.request.replyBytes = 77;
      finishReply(bench.door, bench.request, outcome);
      const { buffer, byteOffset } = bench.request.reply.bytes;
      const view = new DataView(buffer, byteOffset);
      assert.equal(view.getInt32(4, true), -Errno.EIO, `${operation.name} ${String(outcome)}`);
      assert.equal(view.getUint32(0, true), REPLY_BODY, 'an error has no body');
    }
  });
  const served = OPERATIONS.filter((operation) => operation !== undefined).length;
  assert.equal(bench.door.counters.illegalReplies, served * wrong.length);
  assert.ok(bench.complaints.length > 0);
});

test('errors of a filesystem that are not errnos become EIO', () => {
  for (const errno of [524_288, -1, 1.5, NaN, 512]) {
    const bench = new Bench();
    bench.fs.faults.set('getattr', () => new FsError(errno));
    assert.equal(
      bench.serve(Opcode.GETATTR, 1, new Uint8Array(16)).error,
      -Errno.EIO,
      String(errno),
    );
    assert.equal(bench.door.counters.illegalReplies, 1);
  }
});

test('a handler that throws something else is a bug: EIO, a stack, and on we go', () => {
  const bench = new Bench();
  bench.fs.faults.set('getattr', () => new TypeError('oops'));
  assert.equal(bench.serve(Opcode.GETATTR, 1, new Uint8Array(16)).error, -Errno.EIO);
  assert.equal(bench.door.counters.bugs, 1);
  assert.match(bench.complaints[0]!, /GETATTR: TypeError: oops\n {4}at /);
  bench.fs.faults.clear();
  assert.equal(bench.serve(Opcode.GETATTR, 1, new Uint8Array(16)).error, 0);
});

test('bad names are EINVAL, long ones ENAMETOOLONG', () => {
  const bench = new Bench();
  for (const name of ['', '.', '..', 'a/b', '/']) {
    assert.equal(bench.name(Opcode.LOOKUP, 1, 0, name).error, -Errno.EINVAL, JSON.stringify(name));
    assert.equal(bench.name(Opcode.MKDIR, 1, 8, name).error, -Errno.EINVAL, JSON.stringify(name));
  }
  assert.equal(bench.name(Opcode.LOOKUP, 1, 0, 'x'.repeat(256)).error, -Errno.ENAMETOOLONG);
  assert.equal(bench.name(Opcode.LOOKUP, 1, 0, 'x'.repeat(255)).error, 0);
  assert.equal(bench.name(Opcode.LOOKUP, 1, 0, '...').error, 0);
  assert.equal(bench.serve(Opcode.LOOKUP, 1, Buffer.from('abc')).error, -Errno.EINVAL, 'no NUL');
  assert.equal(bench.serve(Opcode.LOOKUP, 1, new Uint8Array(0)).error, -Errno.EINVAL, 'no body');
});

test('unknown opcodes are ENOSYS, unknown nodes ESTALE, wrong lengths EINVAL', () => {
  const bench = new Bench();
  for (const opcode of [0, 7, 19, 54, 4096, 0xffff_ffff]) {
    assert.equal(bench.serve(opcode, 1, new Uint8Array(64)).error, -Errno.ENOSYS);
  }
  assert.equal(bench.serve(Opcode.GETATTR, 99, new Uint8Array(16)).error, -Errno.ESTALE);
  assert.equal(bench.serve(Opcode.GETATTR, 1, new Uint8Array(15)).error, -Errno.EINVAL);
  assert.equal(bench.serve(Opcode.GETATTR, 1, new Uint8Array(16), 200).error, -Errno.EINVAL);
});

test('a negative lookup may be remembered, a positive one counts', () => {
  const bench = new Bench();
  const absent = bench.name(Opcode.LOOKUP, 1, 0, 'a');
  assert.deepEqual([absent.error, absent.bytes], [0, ENTRY_OUT.bytes]);
  assert.equal(absent.body.getBigUint64(0, true), 0n);
  assert.ok(absent.body.getBigUint64(16, true) > 1000n);
  const made = bench.name(Opcode.MKDIR, 1, 8, 'a');
  const nodeid = Number(made.body.getBigUint64(0, true));
  assert.equal(Number(bench.name(Opcode.LOOKUP, 1, 0, 'a').body.getBigUint64(0, true)), nodeid);
  const forget = new Uint8Array(BATCH_FORGET_IN.bytes + 16);
  const view = new DataView(forget.buffer);
  view.setUint32(0, 9, true);
  view.setBigUint64(8, BigInt(nodeid), true);
  view.setBigUint64(16, 2n, true);
  bench.serve(Opcode.BATCH_FORGET, 0, forget);
  assert.equal(bench.door.nodes.size, 1);
  assert.match(bench.complaints[0]!, /malformed BATCH_FORGET: 9 declared, 1 came/);
});

test('a lookup whose attributes cannot be read is not counted, one the kernel refuses is taken back', () => {
  const bench = new Bench();
  bench.name(Opcode.MKDIR, 1, 8, 'a');
  takeBack(bench.door, bench.request);
  assert.equal(bench.door.nodes.size, 1);
  bench.fs.faults.set('getattr', () => new FsError(Errno.EIO));
  assert.equal(bench.name(Opcode.LOOKUP, 1, 0, 'a').error, -Errno.EIO);
  assert.equal(bench.door.nodes.size, 1);
});

function writeBody(data: Uint8Array, flags: number, position = 0): Uint8Array {
  const body = new Uint8Array(WRITE_IN.bytes + data.length);
  const view = new DataView(body.buffer);
  view.setBigUint64(WRITE_IN.at.offset, BigInt(position), true);
  view.setUint32(WRITE_IN.at.size, data.length, true);
  view.setUint32(WRITE_IN.at.writeFlags, flags, true);
  body.set(data, WRITE_IN.bytes);
  return body;
}

function makeFile(bench: Bench): number {
  return Number(bench.name(Opcode.MKNOD, 1, 16, 'f').body.getBigUint64(0, true));
}

test('a cached write is never answered short', () => {
  const data = new Uint8Array(4096).fill(7);
  for (const room of [0, 100, 4095]) {
    const bench = new Bench();
    const nodeid = makeFile(bench);
    bench.fs.writeBytesMax = room;
    assert.equal(
      bench.serve(Opcode.WRITE, nodeid, writeBody(data, FUSE_WRITE_CACHE)).error,
      -Errno.ENOSPC,
      `room ${room}`,
    );
  }
  const plain = new Bench();
  const nodeid = makeFile(plain);
  plain.fs.writeBytesMax = 100;
  const short = plain.serve(Opcode.WRITE, nodeid, writeBody(data, 0));
  assert.deepEqual(
    [short.error, short.body.getUint32(0, true)],
    [0, 100],
    'a plain write may be short',
  );
});

test('a write of more bytes than came is EINVAL', () => {
  const bench = new Bench();
  const nodeid = makeFile(bench);
  const body = writeBody(new Uint8Array(100), 0);
  new DataView(body.buffer).setUint32(WRITE_IN.at.size, 101, true);
  assert.equal(bench.serve(Opcode.WRITE, nodeid, body).error, -Errno.EINVAL);
});

test('data is written from the request and read into the reply', () => {
  const bench = new Bench();
  const nodeid = makeFile(bench);
  bench.serve(Opcode.WRITE, nodeid, writeBody(Buffer.from('hello'), FUSE_WRITE_CACHE, 3));
  const body = new Uint8Array(READ_IN.bytes);
  new DataView(body.buffer).setUint32(READ_IN.at.size, 4096, true);
  const reply = bench.serve(Opcode.READ, nodeid, body);
  assert.equal(reply.bytes, 8);
  assert.equal(Buffer.from(reply.body.buffer, reply.body.byteOffset, 8).toString('latin1'), '\0\0\0hello');
  new DataView(body.buffer).setUint32(READ_IN.at.size, 0x7fff_ffff, true);
  assert.equal(bench.serve(Opcode.READ, nodeid, body).error, -Errno.EINVAL);
});

function listNames(bench: Bench, opcode: number, size: number): string[] {
  const names: string[] = [];
  const head = opcode === Opcode.READDIRPLUS ? ENTRY_OUT.bytes : 0;
  for (let cookie = 0n; ;) {
    const body = new Uint8Array(READ_IN.bytes);
    const view = new DataView(body.buffer);
    view.setBigUint64(READ_IN.at.offset, cookie, true);
    view.setUint32(READ_IN.at.size, size, true);
    const reply = bench.serve(opcode, 1, body);
    assert.equal(reply.error, 0);
    assert.ok(reply.bytes <= size);
    if (reply.bytes === 0) return names;
    for (let at = 0; at < reply.bytes;) {
      const count = reply.body.getUint32(at + head + 16, true);
      names.push(
        Buffer.from(reply.body.buffer, reply.body.byteOffset + at + head + 24, count).toString('latin1'),
      );
      cookie = reply.body.getBigUint64(at + head + 8, true);
      at += (head + 24 + count + 7) & ~7;
    }
  }
}

test('listings are whole, for every size of reply, and cost one readdir', () => {
  const bench = new Bench();
  const names = Array.from({ length: 300 }, (_, i) => `name-${i}-${'x'.repeat(i % 40)}`);
  for (const name of names) bench.name(Opcode.MKNOD, 1, 16, name);
  for (const opcode of [Opcode.READDIR, Opcode.READDIRPLUS]) {
    for (const size of [400, 4096, 100_000]) {
      bench.fs.readdirs = 0;
      const given = listNames(bench, opcode, size);
      assert.deepEqual(given.slice(0, 2), ['.', '..']);
      assert.deepEqual(given.slice(2).sort(), names.toSorted());
      // The end of a listing drops it; the empty reply after a whole one may need it once more.
      assert.ok(bench.fs.readdirs <= 2, `${bench.fs.readdirs} for ${size}`);
    }
  }
});

test('a READDIRPLUS counts each lookup, and takes them back if it is refused', () => {
  const bench = new Bench();
  for (const name of ['a', 'b']) bench.name(Opcode.MKNOD, 1, 16, name);
  assert.equal(bench.door.nodes.size, 3);
  const body = new Uint8Array(READ_IN.bytes);
  new DataView(body.buffer).setUint32(READ_IN.at.size, 4096, true);
  bench.serve(Opcode.READDIRPLUS, 1, body);
  assert.equal(bench.request.handedOut.length, 2);
  const [first] = bench.request.handedOut;
  takeBack(bench.door, bench.request);
  assert.equal(bench.door.nodes.forget(first!, 1), true);
  assert.equal(bench.door.nodes.find(first!), undefined, 'one lookup of MKNOD was left');
});

test('no bytes crash the door', () => {
  const seed = Number(process.env.SEED ?? 4711);
  const random = seeded(seed);
  const bench = new Bench();
  for (let i = 0; i < 30; i++) bench.name(Opcode.MKDIR, 1, 8, `d${i}`);
  for (let step = 0; step < 40_000; step++) {
    const body = new Uint8Array(Math.floor(random() * 120));
    for (let i = 0; i < body.length; i++) body[i] = random() < 0.6 ? 0 : Math.floor(random() * 256);
    const opcode = Math.floor(random() * 56);
    // FORGET would empty the table, and DESTROY and INIT change the mode.
    if (opcode === Opcode.FORGET || opcode === Opcode.BATCH_FORGET || opcode === Opcode.DESTROY)
      continue;
    bench.serve(opcode, Math.floor(random() * 40), body);
    assert.equal(
      bench.door.counters.bugs,
      0,
      `SEED=${seed} step ${step} opcode ${opcode}: ${bench.complaints.at(-1)}`,
    );
    assert.equal(
      bench.door.counters.illegalReplies,
      0,
      `SEED=${seed} step ${step} opcode ${opcode}`,
    );
    takeBack(bench.door, bench.request);
  }
  bench.door.nodes.check();
});

test('a read-only door refuses what would change', () => {
  const fs = new MemoryFs();
  const door = new Door(fs, {
    dataMode: 'writeback',
    readOnly: true,
    hashKey: [1, 2],
    complain: () => {},
    notify: () => {},
    notifyAndWait: () => taskOf(0),
  });
  const bench = new Bench();
  Object.assign(bench, { door });
  assert.equal(bench.name(Opcode.MKDIR, 1, 8, 'a').error, -Errno.EROFS);
  assert.equal(bench.name(Opcode.LOOKUP, 1, 0, 'a').error, 0);
});

test('times that the kernel writes back unchanged change nothing', () => {
  const bench = new Bench();
  const init = new Uint8Array(64);
  const view = new DataView(init.buffer);
  view.setUint32(0, 7, true);
  view.setUint32(4, 45, true);
  view.setUint32(12, 0xffff_ffff, true);
  assert.equal(bench.serve(Opcode.INIT, 0, init).error, 0);
  assert.equal(bench.door.agreed('WRITEBACK_CACHE'), true);
  const nodeid = makeFile(bench);
  bench.fs.faults.set('setattr', () => new FsError(Errno.EIO));
  const flush = (sec: number, valid: number): number => {
    const body = new Uint8Array(SETATTR_IN.bytes);
    const record = new DataView(body.buffer);
    record.setUint32(0, valid, true);
    record.setBigInt64(SETATTR_IN.at.mtime, BigInt(sec), true);
    return bench.serve(Opcode.SETATTR, nodeid, body).error;
  };
  const mtimeOf = (): number => {
    const reply = bench.serve(Opcode.GETATTR, nodeid, new Uint8Array(16));
    return Number(reply.body.getBigInt64(ATTR_OUT.at.attr + ATTR.at.mtime, true));
  };
  assert.equal(flush(1, FATTR_MTIME | FATTR_CTIME), 0, 'the mtime it has');
  assert.equal(flush(2, FATTR_MTIME | FATTR_CTIME), -Errno.EIO, 'another');
  assert.equal(flush(1, FATTR_MTIME | FATTR_MODE), -Errno.EIO, 'and more');
  bench.fs.faults.clear();
  assert.equal(flush(2, FATTR_MTIME | FATTR_CTIME), 0);
  assert.equal(mtimeOf(), 2, 'it is changed, though the answer is not asked for');
});

test('INIT is negotiated down, and refused below what we know', () => {
  const init = (major: number, minor: number, bytes: number): [Bench, Reply] => {
    const bench = new Bench();
    const body = new Uint8Array(bytes);
    const view = new DataView(body.buffer);
    view.setUint32(0, major, true);
    view.setUint32(4, minor, true);
    view.setUint32(8, 65_536, true);
    view.setUint32(12, (1 << InitBit.MAX_PAGES) | (1 << InitBit.POSIX_LOCKS), true);
    return [bench, bench.serve(Opcode.INIT, 0, body)];
  };
  const [bench, reply] = init(7, 31, 16);
  assert.equal(reply.error, 0);
  assert.equal(bench.door.agreement?.minor, 31);
  assert.equal(reply.body.getUint32(8, true), 65_536, 'no more read-ahead than the kernel offers');
  assert.equal(
    reply.body.getUint32(12, true),
    1 << InitBit.MAX_PAGES,
    'what was not offered is not taken',
  );
  assert.equal(reply.body.getUint32(32, true), 0, 'no upper flags without INIT_EXT');
  assert.equal(bench.door.agreed('NO_OPEN_SUPPORT'), false);
  assert.equal(bench.serve(Opcode.OPEN, 1, new Uint8Array(8)).error, 0, 'so OPEN is answered');
  const [newer, again] = init(8, 0, 16);
  assert.deepEqual([again.error, again.body.getUint32(0, true)], [0, 7]);
  assert.equal(newer.door.agreement, undefined, 'the kernel asks again');
  assert.equal(init(7, 22, 16)[1].error, -Errno.EPROTO);
  assert.equal(init(6, 40, 16)[1].error, -Errno.EPROTO);
  for (const flag of Object.keys(InitBit))
    assert.ok(INIT_CHOICES[flag as keyof typeof InitBit][1].length > 0);
});
