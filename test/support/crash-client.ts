/**
 * The load of the crash tests: does a list of steps in a tree and says the number of each once it is
 * done. Ends by itself at the first step that fails, as it does when the daemon is gone.
 *
 *   crash-client ROOT STEPS.json
 */
import fs from 'node:fs';
import { calls, perform, type Call } from './calls.ts';
import { blockOf, type Step } from './crash-model.ts';

const [root, file] = process.argv.slice(2) as [string, string];
const O_RDWR = 2;
const O_CREAT_EXCL = 0o300;

function write(step: Extract<Step, { kind: 'write' }>): void {
  const fd = calls.open(`${root}/${step.path}`, O_RDWR);
  const content = blockOf(step.id, step.block, step.version);
  if (step.by === 'map') {
    const map = calls.mmap(fd, calls.fstat(fd).size, 3);
    calls.mapWrite(map, step.block * content.length, content);
    if (step.sync) calls.msync(map);
    calls.munmap(map);
  } else {
    calls.pwrite(fd, content, step.block * content.length);
    if (step.sync) calls.fsync(fd);
  }
  calls.close(fd);
}

/** As an editor saves: a new file beside the old one, on stable storage, then over it. */
function replace(step: Extract<Step, { kind: 'replace' }>): void {
  const temporary = `${root}/${step.temporary}`;
  const fd = calls.open(temporary, O_RDWR | O_CREAT_EXCL, 0o644);
  for (let block = 0; block < step.blocks; block++) {
    const content = blockOf(step.id, block, step.version);
    calls.pwrite(fd, content, block * content.length);
  }
  calls.fsync(fd);
  calls.close(fd);
  calls.rename(temporary, `${root}/${step.path}`);
}

function perform1(step: Step): void {
  if (step.kind === 'write') write(step);
  else if (step.kind === 'replace') replace(step);
  else {
    const [name, ...args] = step.call;
    const call: Call = [name, ...args.map((a) => (typeof a === 'object' ? `${root}/${a.path}` : a))];
    const outcome = perform(call);
    if ('errno' in outcome) throw new Error(`${name}: errno ${outcome.errno}`);
  }
}

process.umask(0);
const steps = JSON.parse(fs.readFileSync(file, 'utf8')) as Step[];
fs.writeSync(1, 'begin\n');
steps.forEach((step, i) => {
  try {
    perform1(step);
  } catch (e) {
    fs.writeSync(2, `step ${i} ${JSON.stringify(step)}: ${e instanceof Error ? e.message : String(e)}\n`);
    process.exit(3);
  }
  fs.writeSync(1, `${i}\n`);
});
fs.writeSync(1, 'end\n');
