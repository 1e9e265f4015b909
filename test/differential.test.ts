/**
 * Random operations on a mounted union and on a plain directory: the same answers, the same trees;
 * and the kernel's overlayfs can go on with our branches, as we can with its.
 *
 * PALIMPSEST_SEEDS says how many sequences (default below), PALIMPSEST_FROM the first seed,
 * PALIMPSEST_OPS the operations of each, PALIMPSEST_SHRINK=1 cuts a failing one down.
 */
import { test, type TestContext } from 'node:test';
import { Divergence, runSequence, shownOps, shrink, type Phase, type SequenceOptions } from './support/differential.ts';
import { subjects, unable, type SubjectKind } from './support/world.ts';

const number = (name: string, otherwise: number): number => Number(process.env[name] ?? otherwise);

const FROM = number('PALIMPSEST_FROM', 1);
const OPS = number('PALIMPSEST_OPS', 80);
const SEEDS = number('PALIMPSEST_SEEDS', 24);
const skip = unable() ?? false;

async function sequence(t: TestContext, options: SequenceOptions): Promise<void> {
  try {
    await runSequence(options);
  } catch (e) {
    if (!(e instanceof Divergence)) throw e;
    const failure = process.env['PALIMPSEST_SHRINK'] === undefined ? e : await shrink(options, e);
    t.diagnostic(`SEED=${options.seed}`);
    throw new Error(`SEED=${options.seed}\n${failure.message}\n  after:\n${shownOps(failure.done)}`, { cause: e });
  }
}

/** Stops at the third failure: a daemon that is broken is broken for every seed. */
async function sequences(t: TestContext, count: number, make: (seed: number) => Omit<SequenceOptions, 'seed'>): Promise<void> {
  let failures = 0;
  for (let seed = FROM; seed < FROM + count && failures < 3; seed++) {
    await t.test(`seed ${seed}`, async (t2) => {
      try {
        await sequence(t2, { seed, ...make(seed) });
      } catch (e) {
        failures++;
        throw e;
      }
    });
  }
}

function split(kinds: readonly SubjectKind[]): Phase[] {
  return kinds.map((kind) => ({ kind, ops: Math.ceil(OPS / kinds.length) }));
}

for (const kind of subjects()) {
  test(`${kind} agrees with a plain directory`, { skip }, (t) =>
    sequences(t, SEEDS, (seed) => ({
      phases: split([kind, kind]),
      on: seed % 4 === 0 ? 'disk' : 'tmpfs',
    })),
  );
}

if (subjects().includes('palimpsest')) {
  const few = Math.ceil(SEEDS / 4);
  for (const mountOptions of [[], ['metacopy=off']]) {
    const options = mountOptions.join(',') || 'all features';
    test(`kernel overlayfs goes on with our branches (${options})`, { skip }, (t) =>
      sequences(t, few, () => ({ phases: split(['palimpsest', 'overlay']), mountOptions })),
    );
    test(`we go on with the branches of kernel overlayfs (${options})`, { skip }, (t) =>
      sequences(t, few, () => ({ phases: split(['overlay', 'palimpsest']), mountOptions })),
    );
  }
  test('turn and turn about with kernel overlayfs', { skip }, (t) =>
    sequences(t, few, (seed) => ({
      phases: split(['palimpsest', 'overlay', 'palimpsest', 'overlay', 'palimpsest']),
      on: seed % 2 === 0 ? 'disk' : 'tmpfs',
    })),
  );
}
