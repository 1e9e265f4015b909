/** `npm run bench -- NAME [args]`: runs bench/NAME.ts. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

const name = process.argv[2];
const file = join(import.meta.dirname, `${name}.ts`);
if (name === undefined || name === 'main' || !existsSync(file)) {
  const known = readdirSync(import.meta.dirname)
    .filter((entry) => entry.endsWith('.ts') && entry !== 'main.ts' && !entry.includes('.test.'))
    .map((entry) => entry.slice(0, -3));
  console.error(`usage: npm run bench -- ${known.join('|')} [args]`);
  process.exit(2);
}
process.argv.splice(1, 2, file);
await import(file);
