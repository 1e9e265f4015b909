/** `palimpsest version`. */
import { readFileSync } from 'node:fs';
import { release } from 'node:os';
import { FUSE_KERNEL_MINOR_VERSION, FUSE_KERNEL_VERSION } from '../fuse/abi.ts';
import { EXIT_OK } from './exit.ts';
import { print, printJson } from './output.ts';

export function packageVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

// oxlint-disable-next-line require-await -- every command gives a promise
export async function versionCommand(options: { json?: boolean }): Promise<number> {
  const version = packageVersion();
  if (options.json !== true) {
    print(`palimpsest ${version}`);
    return EXIT_OK;
  }
  printJson({
    version: 1,
    palimpsest: version,
    node: process.versions.node,
    kernel: release(),
    fuseProtocol: `${FUSE_KERNEL_VERSION}.${FUSE_KERNEL_MINOR_VERSION}`,
    arch: process.arch,
  });
  return EXIT_OK;
}
