/**
 * Whether a mount that has no daemon known to us answers: asked by a child, for whoever asks a hung
 * filesystem is stuck with it, and could not even exit.
 */
import { spawn } from 'node:child_process';

export type Liveness =
  /** It answers. */
  | 'alive'
  /** Its daemon has gone: ENOTCONN. */
  | 'dead'
  /** No answer in time. */
  | 'hung';

/** Far longer than a busy daemon takes for one request. */
const ANSWER_MS = 3000;
/** What a killed child is given to die. */
const DEATH_MS = 200;
const DEAD_STATUS = 3;
const ASK = `
try { require('node:fs').statSync(process.argv[1]); }
catch (e) { if (e.code === 'ENOTCONN' || e.code === 'ECONNABORTED') process.exit(${DEAD_STATUS}); }`;

export function livenessOf(target: string, answerMs = ANSWER_MS): Promise<Liveness> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['-e', ASK, target], { stdio: 'ignore', cwd: '/' });
    const late = setTimeout(() => {
      child.kill('SIGKILL');
      // Until it has died it uses the mount; a request that the daemon has taken keeps it till the end.
      setTimeout(() => {
        child.unref();
        resolve('hung');
      }, DEATH_MS);
    }, answerMs);
    child.once('error', reject);
    child.once('exit', (status) => {
      clearTimeout(late);
      if (status === null) resolve('hung');
      else resolve(status === DEAD_STATUS ? 'dead' : 'alive');
    });
  });
}
