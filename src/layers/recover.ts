/**
 * What is to be done about commits that a crash interrupted: called before diff, commit, discard and
 * mount of any workspace over the base.
 *
 * Unsealed: dropped. Sealed: rolled forward, since everything is staged; backward, if it was on its way
 * back, or if forward fails. Through with the base: the upper is cleaned, if it is the one at hand.
 */
import { Errno } from '../abi/errno.ts';
import type { Task } from '../kernel/task.ts';
import type { Inode } from '../vfs/inode-operations.ts';
import { finish } from './commit.ts';
import { identityOf, isIdentity, readJournal } from './journal.ts';
import type { Journal } from './journal.ts';
import {
  JOURNAL,
  checkNothingParked,
  dropOld,
  ownerOf,
  removeStaging,
  stagingIds,
  stagingName,
} from './staging.ts';
import { backward, forward } from './steps.ts';
import type { Staging } from './steps.ts';
import type { RecoverOptions, Recovery } from './types.ts';
import { LayerError } from './types.ts';

export function* recoverCommit(options: RecoverOptions): Task<Recovery[]> {
  const recoveries: Recovery[] = [];
  for (const id of yield* stagingIds(options.base)) {
    const dir = yield* options.base.lookup(stagingName(id));
    if (dir === undefined) continue;
    yield* refuseIfAlive(options, dir, id);
    recoveries.push({ id, outcome: yield* recoverOne(options, dir, id) });
  }
  return recoveries;
}

function* refuseIfAlive(options: RecoverOptions, dir: Inode, id: string): Task<void> {
  const owner = yield* ownerOf(dir);
  if (owner !== '' && options.ownerAlive?.(owner) === true) {
    throw new LayerError(Errno.EBUSY, `a commit is under way in the base (${stagingName(id)})`);
  }
}

function* recoverOne(options: RecoverOptions, dir: Inode, id: string): Task<Recovery['outcome']> {
  const journalFile = yield* dir.lookup(JOURNAL);
  const journal = journalFile === undefined ? undefined : yield* readJournal(journalFile);
  if (journalFile === undefined || journal === undefined) {
    yield* checkNothingParked(dir, id);
    yield* removeStaging(options.base, id, options.onProgress);
    return 'removed';
  }
  const { base, onProgress } = options;
  const staging: Staging = { base, dir, journalFile, journal, onProgress };
  if (!journal.phases.has('committed') && (yield* rollBackIfNeeded(staging))) {
    yield* removeStaging(base, id, onProgress);
    return 'undone';
  }
  return yield* finishFor(options, staging);
}

/** True: it was rolled back. False: it was rolled forward. */
function* rollBackIfNeeded(staging: Staging): Task<boolean> {
  const { phases } = staging.journal;
  if (phases.has('undone')) return true;
  if (!phases.has('undo')) {
    try {
      yield* forward(staging);
      return false;
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      // What stands in the way of going forward may not stand in the way of going back.
    }
  }
  yield* backward(staging);
  return true;
}

function* finishFor(options: RecoverOptions, staging: Staging): Task<Recovery['outcome']> {
  const { upper } = options;
  if (staging.journal.phases.has('pruned')) {
    yield* removeStaging(staging.base, staging.journal.header.id, options.onProgress);
    return 'completed';
  }
  if (upper === undefined || !(yield* isItsUpper(staging.journal, upper))) {
    yield* dropOld(staging.dir, options.onProgress);
    return 'pending';
  }
  yield* finish(staging, { ...options, upper });
  return 'completed';
}

function* isItsUpper(journal: Journal, upper: Inode): Task<boolean> {
  return isIdentity(journal.header.upper, identityOf(yield* upper.getattr()));
}
