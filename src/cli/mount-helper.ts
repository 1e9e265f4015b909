/**
 * The helper of mount(8): `mount -t fuse.palimpsest SPEC DIR -o …` and /etc/fstab.
 *
 * Called as `/sbin/mount.fuse.palimpsest SPEC DIR [-sfnv] [-N ns] [-t type] [-o opts]`, or by mount.fuse3
 * as `palimpsest SPEC DIR -o …`. Parsed by hand: at boot every millisecond of start-up is waited for.
 * -s: sloppy, -n: no mtab, -v: verbose, -f: fake (say whether it would work, mount nothing).
 */
import { mountCommand, requestOf } from './mount.ts';
import { MountError } from '../mount/options.ts';
import { EXIT_MOUNT, EXIT_OK, EXIT_USAGE } from './exit.ts';
import { note } from './output.ts';

interface HelperCall {
  words: string[];
  options: string[];
  fake: boolean;
  verbose: boolean;
}

export function parseHelperCall(argv: readonly string[]): HelperCall {
  const call: HelperCall = { words: [], options: [], fake: false, verbose: false };
  for (let i = 0; i < argv.length; i++) {
    const argument = argv[i]!;
    if (argument === '-o' || argument === '-t' || argument === '-N') {
      const value = argv[++i];
      if (value === undefined) throw new MountError('usage', `${argument} needs a value`);
      if (argument === '-o') call.options.push(value);
    } else if (/^-o./.test(argument)) {
      call.options.push(argument.slice(2));
    } else if (/^-[sfnvrw]+$/.test(argument)) {
      if (argument.includes('f')) call.fake = true;
      if (argument.includes('v')) call.verbose = true;
      if (argument.includes('r')) call.options.push('ro');
    } else if (argument.startsWith('-')) {
      throw new MountError('usage', `unknown option ${argument}`);
    } else {
      call.words.push(argument);
    }
  }
  return call;
}

/** Every failure is 32 to mount(8), but what was typed wrong is 1 there and 2 here; it takes both. */
export async function mountHelper(argv: readonly string[]): Promise<number> {
  try {
    const call = parseHelperCall(argv);
    if (call.words.length !== 2) {
      note('usage: mount.fuse.palimpsest SPEC DIR [-sfnv] [-o options]');
      return EXIT_USAGE;
    }
    if (call.verbose) note(`palimpsest: ${call.words.join(' ')} -o ${call.options.join(',')}`);
    if (call.fake) {
      requestOf(call.words, { options: call.options });
      return EXIT_OK;
    }
    return await mountCommand(call.words, { options: call.options });
  } catch (error) {
    if (!(error instanceof MountError)) throw error;
    note(`mount.fuse.palimpsest: ${error.message}`);
    return EXIT_MOUNT;
  }
}
