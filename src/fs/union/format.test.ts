import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hexOf } from '../../lib/latin1.ts';
import { Prng } from '../../lib/prng.ts';
import { decodeNlink, decodeOrigin, encodeNlink, encodeOrigin, inoOfHandle } from './format.ts';

const fromHex = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, 'hex'));

/** Read with getfattr from an upper that kernel overlayfs 6.18 made over ext4 (no UUID; inode 2146433). */
const GOLDEN = '00fb1d0001' + '00'.repeat(16) + '81c0200016254f62';

test('the origin record has the kernel layout', () => {
  const handle = decodeOrigin(fromHex(GOLDEN));
  assert.ok(handle !== undefined);
  assert.equal(handle.type, 1);
  assert.equal(hexOf(handle.uuid), '00'.repeat(16));
  assert.equal(inoOfHandle(handle), 2146433);
  assert.equal(hexOf(encodeOrigin(handle)), GOLDEN);
});

test('a tmpfs handle has the generation first and a 64-bit number', () => {
  const bytes = fromHex('0200000005000000' + '01000000');
  assert.equal(inoOfHandle({ type: 1, bytes, uuid: new Uint8Array(16) }), 5 + 2 ** 32);
});

test('decode(encode(x)) is x, and damaged records are no origin', () => {
  const random = new Prng(4711);
  for (let i = 0; i < 2000; i++) {
    const bytes = Uint8Array.from({ length: random.below(100) }, () => random.below(256));
    const uuid = Uint8Array.from({ length: 16 }, () => random.below(256));
    const handle = { type: random.below(256), bytes, uuid };
    const record = encodeOrigin(handle);
    assert.deepEqual(decodeOrigin(record), handle);
    assert.equal(decodeOrigin(record.subarray(0, random.below(record.length))), undefined);
    const damaged = record.slice();
    damaged[random.below(3)]! ^= 1 + random.below(255);
    assert.equal(decodeOrigin(damaged), undefined);
  }
});

test('the link count record', () => {
  for (const text of ['U+1', 'U-3', 'L+0', 'L-1', 'U+0']) {
    const record = decodeNlink(Uint8Array.from(Buffer.from(text)));
    assert.ok(record !== undefined, text);
    assert.equal(Buffer.from(encodeNlink(record)).toString(), text);
  }
  for (const text of ['', 'U', 'X+1', 'U1', 'U+', 'U+1 ', 'L+99999999999']) {
    assert.equal(decodeNlink(Uint8Array.from(Buffer.from(text))), undefined, text);
  }
});
