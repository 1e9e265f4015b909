import type { Command } from 'commander';
export async function completionCommand(_shell: string, _program: Command): Promise<number> { return 0; }
