import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Stat } from '../abi/stat.ts';
import { ATTR_OUT, ENTRY_OUT, IN_HEADER, Opcode, SETATTR_IN, STATX_OUT, WRITE_IN } from './abi.ts';
import {
  decodeMajor,
  decodeMinor,
  encodeDevice,
  putAbsence,
  putAttrOut,
  putEntry,
  putStatxOut,
} from './attr.ts';
import {
  invalidateAttributesRecord,
  deleteRecord,
  expireEntryRecord,
  invalidateEntryRecord,
  invalidateInodeRecord,
} from './notify.ts';
import { REPLY_BODY, Request } from './request.ts';
import { OPERATIONS } from './opcodes.ts';
import type { Name } from '../vfs/inode-operations.ts';

const stat: Stat = {
  ino: 2 ** 52 + 3,
  mode: 0o100644,
  nlink: 2,
  uid: 1000,
  gid: 0xffff_fffe,
  size: 2 ** 40 + 5,
  blocks: 9,
  blksize: 4096,
  rdevMajor: 8,
  rdevMinor: 300,
  devMajor: 1,
  devMinor: 2,
  atimeSec: -1,
  atimeNsec: 999_999_999,
  mtimeSec: 2 ** 33,
  mtimeNsec: 1,
  ctimeSec: 0,
  ctimeNsec: 2,
  btimeSec: -(2 ** 33),
  btimeNsec: 3,
};

function body(request: Request): DataView {
  const { buffer, byteOffset } = request.reply.bytes;
  return new DataView(buffer, byteOffset + REPLY_BODY);
}

function hex(request: Request, bytes: number): string {
  return Buffer.from(request.reply.bytes.subarray(REPLY_BODY, REPLY_BODY + bytes)).toString('hex');
}

/** What struct fuse_attr of `stat` is, byte by byte: written by hand from fuse_kernel.h. */
const ATTR_HEX = [
  '0300000000001000',
  '0500000000010000',
  '0900000000000000',
  'ffffffffffffffff',
  '0000000002000000',
  '0000000000000000',
  'ffc99a3b',
  '01000000',
  '02000000',
  'a4810000',
  '02000000',
  'e8030000',
  'feffffff',
  '2c081000',
  '00100000',
  '00000000',
].join('');

test('an attribute record is the bytes of fuse_kernel.h', () => {
  const request = new Request();
  request.reply.bytes.fill(0xaa);
  putAttrOut(request, stat);
  assert.equal(hex(request, ATTR_OUT.bytes), `ffffff7f00000000${'00'.repeat(8)}${ATTR_HEX}`);
});

test('an entry record is the bytes of fuse_kernel.h', () => {
  const request = new Request();
  request.reply.bytes.fill(0xaa);
  putEntry(request, 0, 2 ** 32 * 7 + 9, stat);
  const head = '0900000007000000' + '00'.repeat(8) + 'ffffff7f00000000'.repeat(2) + '00'.repeat(8);
  assert.equal(hex(request, ENTRY_OUT.bytes), head + ATTR_HEX);
  putAbsence(request, 0);
  assert.equal(
    hex(request, ENTRY_OUT.bytes),
    '00'.repeat(16) + 'ffffff7f00000000' + '00'.repeat(104),
  );
});

test('a statx record reads back', () => {
  const request = new Request();
  request.reply.bytes.fill(0xaa);
  putStatxOut(request, stat);
  const view = body(request);
  const at = STATX_OUT.at.stat;
  assert.equal(view.getUint32(at, true), 0xfff);
  assert.equal(view.getUint16(at + 28, true), 0o100644);
  assert.equal(view.getBigUint64(at + 32, true), BigInt(stat.ino));
  assert.equal(view.getBigInt64(at + 64, true), -1n, 'atime');
  assert.equal(view.getBigInt64(at + 80, true), BigInt(stat.btimeSec), 'btime');
  assert.equal(view.getUint32(at + 88, true), 3);
  assert.equal(view.getBigInt64(at + 112, true), BigInt(stat.mtimeSec), 'mtime');
  assert.equal(view.getUint32(at + 132, true), 300, 'rdev minor');
});

test('notifications are the bytes of fuse_kernel.h', () => {
  const show = (record: Uint8Array): string => Buffer.from(record).toString('hex');
  const id = 2 ** 32 * 2 + 5;
  assert.equal(
    show(invalidateInodeRecord(id)),
    '2800000002000000' + '00'.repeat(8) + '0500000002000000' + '00'.repeat(16),
  );
  assert.equal(
    show(invalidateAttributesRecord(id)),
    '2800000002000000' + '00'.repeat(8) + '0500000002000000' + 'ff'.repeat(8) + '00'.repeat(8),
  );
  assert.equal(
    show(invalidateEntryRecord(id, 'a\xff' as Name)),
    '2300000003000000' + '00'.repeat(8) + '0500000002000000' + '0200000000000000' + '61ff00',
  );
  assert.equal(
    show(expireEntryRecord(id, 'a' as Name)),
    '2200000003000000' + '00'.repeat(8) + '0500000002000000' + '0100000001000000' + '6100',
  );
  assert.equal(
    show(deleteRecord(id, 6, 'a' as Name)),
    '2a00000006000000' +
      '00'.repeat(8) +
      '0500000002000000' +
      '0600000000000000' +
      '0100000000000000' +
      '6100',
  );
});

test('device numbers survive the packing of 32 bits', () => {
  for (const [major, minor] of [
    [0, 0],
    [8, 1],
    [4095, 0xf_ffff],
    [1, 256],
  ] as const) {
    const packed = encodeDevice(major, minor);
    assert.deepEqual([decodeMajor(packed), decodeMinor(packed)], [major, minor]);
  }
});

test('requests are read at their offsets', () => {
  const request = new Request();
  const view = new DataView(request.request.bytes.buffer, request.request.bytes.byteOffset);
  view.setUint32(0, 128, true);
  view.setUint32(4, Opcode.SETATTR, true);
  view.setBigUint64(8, 0x8000_0000_0000_0002n, true);
  view.setBigUint64(16, 2n ** 40n, true);
  view.setUint32(24, 1000, true);
  view.setUint32(28, 1001, true);
  view.setUint32(32, 77, true);
  view.setBigUint64(40 + SETATTR_IN.at.size, 2n ** 52n, true);
  view.setBigInt64(40 + SETATTR_IN.at.atime, -5n, true);
  view.setBigUint64(40 + SETATTR_IN.at.lockOwner, 2n ** 60n, true);
  request.arrived(128);
  assert.equal(request.opcode, Opcode.SETATTR);
  assert.equal(request.nodeid, 2 ** 40);
  assert.deepEqual(request.cred(0o1777), { uid: 1000, gid: 1001, umask: 0o777, pid: 77 });
  assert.equal(request.u64(SETATTR_IN.at.size), 2 ** 52);
  assert.equal(request.i64(SETATTR_IN.at.atime), -5);
  assert.throws(() => request.u64(SETATTR_IN.at.lockOwner), { errno: 22 });
  assert.equal(request.u64Capped(SETATTR_IN.at.lockOwner), Number.MAX_SAFE_INTEGER);
  request.replyBytes = 0;
  assert.equal(request.finish(-2), true);
  const reply = Buffer.from(request.reply.bytes.subarray(0, 16)).toString('hex');
  assert.equal(
    reply,
    '10000000' + 'feffffff' + '0200000000000080',
    'the unique comes back whole, high bit too',
  );
});

test('every opcode of the protocol that a kernel sends has an operation', () => {
  for (const [name, opcode] of Object.entries(Opcode)) {
    if (name === 'SETUPMAPPING' || name === 'REMOVEMAPPING')
      assert.equal(OPERATIONS[opcode], undefined);
    else assert.equal(OPERATIONS[opcode]?.name, name);
  }
  assert.equal(IN_HEADER.bytes + WRITE_IN.bytes, 80);
});
