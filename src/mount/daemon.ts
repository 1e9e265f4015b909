/**
 * The daemon's entry: starts the engine's thread before anything else is loaded, so that both threads
 * load their halves at once. The engine waits for its orders, which come when the branches are locked.
 */
import { MessageChannel, Worker } from 'node:worker_threads';
import { programFile } from '../sys/program-file.ts';

const { port1, port2 } = new MessageChannel();
const worker = new Worker(programFile(new URL('./engine-worker.ts', import.meta.url)), {
  workerData: { port: port2 },
  transferList: [port2],
});
const { runDaemon } = await import('./daemon-main.ts');
process.exit(await runDaemon({ worker, port: port1 }));
