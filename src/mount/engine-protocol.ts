/** What the daemon's main thread and its engine worker say to each other. */
import type { MessagePort, Worker } from 'node:worker_threads';
import type { MountPlan } from './plan.ts';

export interface EngineData {
  /** The engine's end. Orders come first; then commands, which it cannot hear but by looking. */
  port: MessagePort;
}

export interface EngineOrders {
  plan: MountPlan;
  /** An eventfd: a command waits in the port. */
  wakeFd: number;
}

/** What the main thread has of the engine. */
export interface StartedEngine {
  worker: Worker;
  port: MessagePort;
}

export interface EngineCommand {
  /** `stop`: end the connection now; it has no reply. */
  kind: 'status' | 'sync' | 'stop';
  /** Given back in the reply. */
  id: number;
}

export type EngineMessage =
  /** Mounted: the kernel's requests queue up in `fd`, and are answered from now on. */
  | { kind: 'mounted'; fd: number }
  | { kind: 'reply'; id: number; result?: unknown; error?: string }
  /** A record for the kernel, to be written to `fd`: it may wait for the engine, so not by it. */
  | { kind: 'notify'; record: Uint8Array }
  | { kind: 'log'; text: string }
  /** Unmounted, flushed and closed. `error`: something accepted did not get to the branch. */
  | { kind: 'ended'; error?: string };
