/** `palimpsest ls`, `status`, and `mount` without arguments. */
import { ControlClient } from '../mount/control.ts';
import { type Liveness, livenessOf } from '../mount/liveness.ts';
import { FS_TYPE, mountAt, readMountinfo } from '../mount/mountinfo.ts';
import { MountError } from '../mount/options.ts';
import { type MountRecord, isAlive, readRecords } from '../mount/state.ts';
import { realTarget, recordOfTarget } from '../mount/stop.ts';
import { EXIT_OK } from './exit.ts';
import { print, printJson, table } from './output.ts';
import { type Workspace, findWorkspace, listWorkspaces } from './workspace.ts';

type MountState = 'mounted' | 'dead' | 'hung' | 'detached' | 'run';

const STATE_OF: Record<Liveness, MountState> = { alive: 'mounted', dead: 'dead', hung: 'hung' };

export interface ListedMount {
  target: string;
  source: string;
  state: MountState;
  pid?: number;
  record?: MountRecord;
}

/** What the kernel's table shows, together with what the records know. */
export async function findMounts(): Promise<ListedMount[]> {
  const found: ListedMount[] = [];
  const entries = readMountinfo().filter((entry) => entry.fsType === FS_TYPE);
  const records = readRecords();
  for (const entry of entries) {
    const record = recordOfTarget(entry.target);
    if (record !== undefined && isAlive(record)) {
      found.push({
        target: entry.target,
        source: entry.source,
        state: 'mounted',
        pid: record.pid,
        record,
      });
    } else {
      const state = STATE_OF[await livenessOf(entry.target)];
      found.push({ target: entry.target, source: entry.source, state });
    }
  }
  for (const record of records) {
    const listed = found.some((mount) => mount.record?.pid === record.pid);
    if (listed || !isAlive(record)) continue;
    const state = record.plan.workspace === undefined ? 'detached' : 'run';
    found.push({
      target: record.plan.target,
      source: record.plan.source,
      state,
      pid: record.pid,
      record,
    });
  }
  return found;
}

const runOf = (workspace: Workspace, mounts: readonly ListedMount[]): ListedMount | undefined =>
  mounts.find((mount) => mount.record?.plan.workspace === workspace.name);

function jsonOfMount(mount: ListedMount): object {
  const { target, source, state, pid, record } = mount;
  return {
    kind: 'mount',
    target,
    source,
    state,
    pid,
    branches: record?.plan.branches,
    started: record?.started,
  };
}

function jsonOfWorkspace(workspace: Workspace, running: boolean): object {
  const { name, created, layers, directory } = workspace;
  return { kind: 'workspace', name, created, running, directory, layers };
}

export async function listMounts(options: { json?: boolean; quiet?: boolean }): Promise<number> {
  const mounts = (await findMounts()).filter((mount) => mount.state !== 'run');
  if (options.json === true) for (const mount of mounts) printJson(jsonOfMount(mount));
  else if (options.quiet === true) for (const mount of mounts) print(mount.target);
  else printMounts(mounts);
  return EXIT_OK;
}

function printMounts(mounts: readonly ListedMount[]): void {
  if (mounts.length === 0) return;
  const rows = mounts.map((mount) => [
    mount.target,
    mount.state,
    mount.pid === undefined ? '-' : String(mount.pid),
    mount.source,
  ]);
  print(table([['MOUNT POINT', 'STATE', 'PID', 'BRANCHES'], ...rows]));
}

export async function listCommand(options: { json?: boolean; quiet?: boolean }): Promise<number> {
  const workspaces = listWorkspaces();
  const mounts = await findMounts();
  if (options.json === true) {
    for (const workspace of workspaces) {
      printJson(jsonOfWorkspace(workspace, runOf(workspace, mounts) !== undefined));
    }
  } else if (options.quiet === true) {
    for (const workspace of workspaces) print(workspace.name);
  } else if (workspaces.length > 0) {
    const rows = workspaces.map((workspace) => [
      workspace.name,
      runOf(workspace, mounts) === undefined ? 'kept' : 'running',
      workspace.created.slice(0, 16).replace('T', ' '),
      workspace.layers.map((layer) => layer.base).join(' '),
    ]);
    print(table([['WORKSPACE', 'STATE', 'CREATED (UTC)', 'TREES'], ...rows]));
    if (mounts.some((mount) => mount.state !== 'run')) print('');
  }
  return listMounts(options);
}

async function statusOfRecord(record: MountRecord): Promise<object> {
  const client = await ControlClient.connect(record.socket);
  if (client === undefined) return { state: 'not answering' };
  try {
    const reply = await client.request('status');
    if (!reply.ok) throw new MountError('failed', reply.error);
    return reply.result as object;
  } finally {
    client.close();
  }
}

export async function statusCommand(
  name: string | undefined,
  options: { json?: boolean },
): Promise<number> {
  if (name === undefined) return listCommand(options);
  const workspace = findWorkspace(name);
  const records = readRecords().filter((record) => isAlive(record));
  const record =
    workspace === undefined
      ? recordOfTarget(realTarget(name))
      : records.find((candidate) => candidate.plan.workspace === name);
  if (workspace === undefined && record === undefined) {
    const target = realTarget(name);
    const isMount = mountAt(readMountinfo(), target)?.fsType === FS_TYPE;
    const why = isMount
      ? 'its daemon has gone; palimpsest umount cleans it up'
      : 'no such workspace or mount';
    throw new MountError('failed', `${name}: ${why}`);
  }
  const daemon = record === undefined ? undefined : await statusOfRecord(record);
  const whole = {
    ...(workspace === undefined ? {} : jsonOfWorkspace(workspace, record !== undefined)),
    ...(record === undefined ? {} : { mount: record }),
    ...(daemon === undefined ? {} : { daemon }),
  };
  if (options.json === true) printJson(whole);
  else printIndented(whole, '');
  return EXIT_OK;
}

/** Nested objects as indented `key: value` lines; counters that are zero say nothing. */
function printIndented(value: object, indent: string): void {
  for (const [key, inner] of Object.entries(value) as [string, unknown][]) {
    if (inner === 0 || inner === undefined) continue;
    if (typeof inner === 'object' && inner !== null) {
      print(`${indent}${key}:`);
      printIndented(inner, `${indent}  `);
    } else {
      print(`${indent}${key}: ${inner as string | number | boolean}`);
    }
  }
}
