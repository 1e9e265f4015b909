import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ControlServer } from './control.ts';

test('a socket that a killed daemon of the same number left is in nobody\'s way', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'palimpsest-control-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const path = join(directory, '1.sock');
  const script = `require('node:net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
  spawnSync(process.execPath, ['-e', script]);
  assert.ok(existsSync(path), 'it was left');
  const server = new ControlServer(path, () => Promise.resolve({}));
  await server.ready();
  await server.end({ event: 'ended' });
});
