/** `palimpsest umount`. */
import { FS_TYPE, readMountinfo } from '../mount/mountinfo.ts';
import { MountError } from '../mount/options.ts';
import { unmount } from '../mount/stop.ts';
import { EXIT_MOUNT, EXIT_OK, EXIT_USAGE } from './exit.ts';
import { note } from './output.ts';

export interface UmountCommandOptions {
  lazy?: boolean;
  force?: boolean;
  all?: boolean;
  timeout?: string;
}

function timeoutOf(text: string | undefined): number {
  if (text === undefined) return 0;
  const seconds = Number(text);
  if (!(seconds > 0)) throw new MountError('usage', `--timeout wants seconds, not "${text}"`);
  return seconds * 1000;
}

export async function umountCommand(
  given: string[],
  options: UmountCommandOptions,
): Promise<number> {
  if (given.length === 0 && options.all !== true) {
    note('palimpsest: which mount point? (or --all)');
    return EXIT_USAGE;
  }
  const all = readMountinfo().filter((entry) => entry.fsType === FS_TYPE);
  // The last mounted first: one may lie on another.
  const targets = options.all === true ? all.map((entry) => entry.target).toReversed() : given;
  const stop = {
    lazy: options.lazy === true,
    force: options.force === true,
    timeoutMs: timeoutOf(options.timeout),
  };
  let status = EXIT_OK;
  for (const target of targets) {
    try {
      const stopped = await unmount(target, stop);
      if (stopped.outcome === 'dead') {
        note(`palimpsest: ${stopped.target} was dead (its daemon had been killed); cleaned up`);
      }
    } catch (error) {
      if (!(error instanceof MountError)) throw error;
      note(`palimpsest: ${error.message}`);
      status = EXIT_MOUNT;
    }
  }
  return status;
}
