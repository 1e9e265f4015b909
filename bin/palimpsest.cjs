#!/usr/bin/env node
/**
 * The command `palimpsest`, started by any Node >= 20: becomes Node 26 if it is not that already,
 * then loads src/cli/main.ts (a checkout) or dist/cli/main.js (the published package).
 */
'use strict';
const { existsSync, statSync } = require('node:fs');
const { join } = require('node:path');
const { isPinnedNode, execPinned } = require('./pinned-node.cjs');

/**
 * Where compiled code is kept: stripping types and compiling cost more than the work of most commands.
 * Only in a directory that is this user's own, since what is cached there is run (think of sudo with
 * $HOME kept). Services and mount(8) at boot have no $HOME: root has a place all the same.
 */
function cacheDirectory() {
  const { HOME, XDG_CACHE_HOME } = process.env;
  const home = XDG_CACHE_HOME || (HOME && join(HOME, '.cache'));
  if (!home || !home.startsWith('/')) {
    return process.geteuid() === 0 ? '/var/cache/palimpsest/compile' : undefined;
  }
  const owned = [home, HOME].find((path) => path && existsSync(path));
  if (owned === undefined || statSync(owned).uid !== process.geteuid()) return undefined;
  return join(home, 'palimpsest', 'compile');
}

function enableCompileCache() {
  const directory = cacheDirectory();
  if (directory !== undefined) require('node:module').enableCompileCache(directory);
}

function main() {
  if (!isPinnedNode()) {
    // The name it was called by, not where it lies: mount(8) calls a link to it.
    execPinned([process.argv[1], ...process.argv.slice(2)]);
    return;
  }
  enableCompileCache();
  const source = join(__dirname, '../src/cli/main.ts');
  const entry = existsSync(source) ? source : join(__dirname, '../dist/cli/main.js');
  import(entry).then(
    (cli) => cli.main(process.argv.slice(2)),
    (error) => {
      process.stderr.write(`palimpsest: ${error.stack || error}\n`);
      process.exit(125);
    },
  );
}

try {
  main();
} catch (error) {
  process.stderr.write(`palimpsest: ${error.message}\n`);
  process.exit(125);
}
