/**
 * What commands print: text, tables, amounts, questions.
 *
 * O1. Never by process.stdin, stdout or stderr: to open those makes pipes non-blocking, for everyone
 *     who shares them, and the command that `run` starts does. Plain write(2) leaves them alone.
 */
import { writeSync } from 'node:fs';
import { createInterface } from 'node:readline/promises';
import { isatty } from 'node:tty';
import { styleText } from 'node:util';

const STDIN = 0;
export const STDOUT = 1;
export const STDERR = 2;
/** A reader slower than us on a pipe that somebody else made non-blocking. */
const FULL_PIPE_MS = 2;

const sleeper = new Int32Array(new SharedArrayBuffer(4));

export function writeAll(fd: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length;) {
    try {
      done += writeSync(fd, bytes, done);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      // `palimpsest diff | head`: nobody reads on.
      if (code === 'EPIPE') process.exit(0);
      if (code !== 'EAGAIN') throw error;
      Atomics.wait(sleeper, 0, 0, FULL_PIPE_MS);
    }
  }
}

export const print = (text: string): void => writeAll(STDOUT, Buffer.from(`${text}\n`));

/** For people, while stdout belongs to data or to the command that was run. */
export const note = (text: string): void => writeAll(STDERR, Buffer.from(`${text}\n`));

/** Text of the core, one char per byte, already complete with its line ends. */
export const printBytes = (text: string, fd = STDOUT): void =>
  writeAll(fd, Buffer.from(text, 'latin1'));

export const printJson = (value: unknown): void => print(JSON.stringify(value));

function wantsColour(fd: number): boolean {
  const { NO_COLOR, FORCE_COLOR } = process.env;
  if (NO_COLOR !== undefined && NO_COLOR !== '') return false;
  if (FORCE_COLOR !== undefined) return FORCE_COLOR !== '0';
  return isatty(fd);
}

export function styled(
  fd: number,
  style: 'bold' | 'green' | 'yellow' | 'red',
  text: string,
): string {
  return wantsColour(fd) ? styleText(style, text, { validateStream: false }) : text;
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const;

export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}

/** Columns as wide as their widest cell; the last one is not padded. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => (widths[column] = Math.max(widths[column] ?? 0, cell.length)));
  }
  const lines = rows.map((row) => {
    const cells = row.map((cell, column) =>
      column === row.length - 1 ? cell : cell.padEnd(widths[column]!),
    );
    return cells.join('  ').trimEnd();
  });
  return lines.join('\n');
}

export const isTerminal = (fd: number): boolean => isatty(fd);

export const isInteractive = (): boolean => isatty(STDIN) && isatty(STDERR);

/** Ask on the terminal until one of the letters is answered. End of input: `otherwise`. */
export async function ask(question: string, letters: string, otherwise: string): Promise<string> {
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  const closed = new Promise<undefined>((resolve) => {
    terminal.once('close', () => resolve(undefined));
  });
  try {
    for (;;) {
      const answer = await Promise.race([terminal.question(question), closed]);
      if (answer === undefined) return otherwise;
      const letter = answer.trim().toLowerCase()[0];
      if (letter !== undefined && letters.includes(letter)) return letter;
    }
  } finally {
    terminal.close();
  }
}
