/** A mount whose daemon does not answer must not stop who asks for it. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { mountFuse } from '../fuse/mount.ts';
import { MNT_DETACH, tryUmount2 } from '../sys/mount.ts';
import { tryClose } from '../sys/open.ts';
import { livenessOf } from './liveness.ts';
import { realTarget } from './stop.ts';

const skip =
  process.geteuid!() === 0 && existsSync('/dev/fuse') ? false : 'needs root and /dev/fuse';

/** Mounted, and nobody reads: closing the descriptor ends the connection. */
function silentMount(t: TestContext): { target: string; end: () => void } {
  const target = mkdtempSync(join(tmpdir(), 'palimpsest-silent-'));
  const fd = mountFuse({ target, source: 'silent', subtype: 'palimpsest', options: {} });
  let open = true;
  const end = (): void => {
    if (open) tryClose(fd);
    open = false;
  };
  t.after(() => {
    end();
    tryUmount2(target, MNT_DETACH);
    rmdirSync(target);
  });
  return { target, end };
}

test('a mount that does not answer is hung, one whose daemon has gone is dead', { skip }, async (t) => {
  const { target, end } = silentMount(t);
  assert.equal(await livenessOf(target, 500), 'hung');
  assert.equal(realTarget(target), target);
  end();
  assert.equal(await livenessOf(target), 'dead');
});

test('a directory answers', async () => {
  assert.equal(await livenessOf(tmpdir()), 'alive');
});
