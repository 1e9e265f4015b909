/** What commands print: tables, amounts, questions. Colour is util.styleText's business (NO_COLOR). */
import { createInterface } from 'node:readline/promises';
import { styleText } from 'node:util';

export const print = (text: string): void => {
  process.stdout.write(`${text}\n`);
};

/** For people, while stdout belongs to data or to the command that was run. */
export const note = (text: string): void => {
  process.stderr.write(`${text}\n`);
};

/** Text of the core, one char per byte, already complete with its line ends. */
export const printBytes = (text: string, stream: NodeJS.WriteStream = process.stdout): void => {
  stream.write(Buffer.from(text, 'latin1'));
};

export const printJson = (value: unknown): void => print(JSON.stringify(value));

export const bold = (text: string): string => styleText('bold', text, { stream: process.stderr });

export function amount(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`;
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

export const isInteractive = (): boolean => process.stdin.isTTY && process.stderr.isTTY;

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
