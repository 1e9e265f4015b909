/**
 * Probes: small questions to a mounted tree, each with the answer a tmpfs gives.
 *
 * A probe prepares a directory of its own in the lower branch, asks its question once the union is
 * mounted, and may ask again after an unmount and a mount. All probes of a file share one world per
 * subject. Every probe is also put to a plain directory first: that shows the probe itself is right.
 *
 * A mount that a probe has killed is mounted anew for the next one.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test, type TestContext } from 'node:test';
import { makeWorld, subjects, unable, type SubjectKind, type World } from './world.ts';
import type { Caller } from './caller.ts';

export interface ProbeContext {
  readonly c: Caller;
  readonly kind: SubjectKind;
  /** The probe's directory as the union shows it. */
  readonly dir: string;
  /** The same in the lower branch (in the plain directory, if that is the subject). */
  readonly lower: string;
  /** The same in the upper branch; undefined if there is none. */
  readonly upper: string | undefined;
  /** From `run` to `after`. */
  readonly kept: Map<string, unknown>;
  readonly t: TestContext;
}

export interface Probe {
  readonly name: string;
  readonly prepare?: (c: Caller, dir: string) => Promise<void>;
  readonly run: (p: ProbeContext) => Promise<void>;
  /** Asked after unmount and mount. */
  readonly after?: (p: ProbeContext) => Promise<void>;
  /** Reasons why a subject that is not the product answers otherwise, so that it is not asked. */
  readonly except?: Partial<Record<SubjectKind, string>>;
}

function contextOf(world: World, kind: SubjectKind, id: string, kept: Map<string, unknown>, t: TestContext): ProbeContext {
  return {
    c: world.caller,
    kind,
    dir: `${world.root}/${id}`,
    lower: kind === 'plain' ? `${world.root}/${id}` : `${world.lower}/${id}`,
    upper: kind === 'plain' ? undefined : `${world.upper}/${id}`,
    kept,
    t,
  };
}

async function isAlive(world: World): Promise<boolean> {
  return (await world.caller.code('lstat', world.root)) === 'OK';
}

async function ensureMounted(world: World, kind: SubjectKind): Promise<void> {
  if (world.mounted !== undefined && (await isAlive(world))) return;
  world.forceDown();
  await world.mount(kind);
}

async function askAll(t: TestContext, kind: SubjectKind, probes: readonly Probe[]): Promise<void> {
  const world = makeWorld(t, { on: 'tmpfs' });
  const idOf = (i: number): string => `p${String(i).padStart(2, '0')}`;
  for (const [i, probe] of probes.entries()) {
    fs.mkdirSync(`${world.lower}/${idOf(i)}`, { mode: 0o755 });
    await probe.prepare?.(world.caller, `${world.lower}/${idOf(i)}`);
  }
  await world.mount(kind);
  const kept = probes.map(() => new Map<string, unknown>());
  const passed = new Set<Probe>();
  for (const [i, probe] of probes.entries()) {
    const reason = probe.except?.[kind];
    await t.test(probe.name, { skip: reason ?? false }, async (t2) => {
      await ensureMounted(world, kind);
      await probe.run(contextOf(world, kind, idOf(i), kept[i]!, t2));
      passed.add(probe);
    });
  }
  await t.test('unmount, nothing left in the work directory, mount', async () => {
    await world.unmount();
    if (kind !== 'plain' && fs.existsSync(`${world.work}/work`)) {
      assert.deepEqual(fs.readdirSync(`${world.work}/work`), []);
    }
    await world.mount(kind);
  });
  for (const [i, probe] of probes.entries()) {
    if (probe.after === undefined || probe.except?.[kind] !== undefined) continue;
    const skip = passed.has(probe) ? false : 'it failed before the remount';
    await t.test(`${probe.name}: after a remount`, { skip }, async (t2) => {
      await ensureMounted(world, kind);
      await probe.after!(contextOf(world, kind, idOf(i), kept[i]!, t2));
    });
  }
}

/** One test per subject, with a subtest per probe. */
export function probeTests(title: string, probes: readonly Probe[]): void {
  const reason = unable();
  const kinds = new Set<SubjectKind>(['plain', ...subjects()]);
  for (const kind of kinds) {
    test(`${title}: ${kind}`, { skip: reason ?? false }, (t) => askAll(t, kind, probes));
  }
}
