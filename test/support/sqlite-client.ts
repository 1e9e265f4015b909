/**
 * A client of SQLite in WAL mode, for a test to kill.
 *
 *   write FILE FROM   inserts rows from FROM on, one a transaction with synchronous=FULL, and says
 *                     each number once it is committed; never ends.
 *   check FILE COUNT  the database is whole and has all rows below COUNT; says how many there are.
 */
import fs from 'node:fs';
import { DatabaseSync } from 'node:sqlite';

const [mode, file, argument] = process.argv.slice(2) as [string, string, string];

const valueOf = (number: number): string => `row ${number} `.repeat(200);

const db = new DatabaseSync(file);
db.exec('PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=10000');

if (mode === 'write') {
  db.exec('CREATE TABLE IF NOT EXISTS rows (number INTEGER PRIMARY KEY, value TEXT)');
  db.exec('PRAGMA wal_autocheckpoint=20');
  const insert = db.prepare('INSERT INTO rows VALUES (?, ?)');
  for (let number = Number(argument); ; number++) {
    insert.run(number, valueOf(number));
    fs.writeSync(1, `${number}\n`);
  }
}

const whole = db.prepare('PRAGMA integrity_check').get()!['integrity_check'];
if (whole !== 'ok') throw new Error(String(whole));
const rows = db.prepare('SELECT number, value FROM rows ORDER BY number').all();
rows.forEach((row, i) => {
  if (row['number'] !== i || row['value'] !== valueOf(i)) throw new Error(`row ${i} is wrong`);
});
if (rows.length < Number(argument)) throw new Error(`${rows.length} rows of ${argument} committed ones`);
process.stdout.write(`${rows.length}\n`);
