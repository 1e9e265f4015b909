/** The kernel's table of mounts: proc(5), /proc/PID/mountinfo. */
import { readFileSync } from 'node:fs';

export interface MountEntry {
  id: number;
  parentId: number;
  /** `MAJOR:MINOR` of the filesystem. */
  device: string;
  /** The directory of that filesystem which is mounted. */
  root: string;
  target: string;
  fsType: string;
  source: string;
  /** Of the superblock. */
  superOptions: string;
}

/** The type our mounts have in the table. */
export const FS_TYPE = 'fuse.palimpsest';

/** The table writes blank, tab, newline and backslash as `\040`, in bytes; paths are UTF-8. */
function decodeField(field: string): string {
  const bytes = field.replaceAll(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
  return Buffer.from(bytes, 'latin1').toString('utf8');
}

export function parseMountinfo(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split('\n')) {
    const [front, back] = line.split(' - ');
    if (front === undefined || back === undefined) continue;
    const fields = front.split(' ');
    const [fsType, source, superOptions] = back.split(' ');
    entries.push({
      id: Number(fields[0]),
      parentId: Number(fields[1]),
      device: fields[2] ?? '',
      root: decodeField(fields[3] ?? ''),
      target: decodeField(fields[4] ?? ''),
      fsType: fsType ?? '',
      source: decodeField(source ?? ''),
      superOptions: decodeField(superOptions ?? ''),
    });
  }
  return entries;
}

/** Every mount this process sees, in the order they were made. */
export function readMountinfo(): MountEntry[] {
  return parseMountinfo(readFileSync('/proc/self/mountinfo', 'latin1'));
}

/** The mount that is seen at `target` (the topmost if several are stacked there). */
export function mountAt(entries: readonly MountEntry[], target: string): MountEntry | undefined {
  return entries.findLast((entry) => entry.target === target);
}

/** The mount that a path lies on. */
export function mountOf(entries: readonly MountEntry[], path: string): MountEntry | undefined {
  let best: MountEntry | undefined;
  for (const entry of entries) {
    if (!isInside(path, entry.target)) continue;
    if (best === undefined || entry.target.length >= best.target.length) best = entry;
  }
  return best;
}

/** Is `path` the directory `directory`, or beneath it? Both absolute and normal. */
export function isInside(path: string, directory: string): boolean {
  if (directory === '/') return true;
  return path === directory || path.startsWith(`${directory}/`);
}
