/**
 * The control socket of a daemon: a unix socket, one JSON object a line, a reply for each request in
 * order. When the daemon is about to go it says so on every connection, with what went wrong, if
 * anything did: `{"event":"ended"}`.
 */
import { rmSync } from 'node:fs';
import { type Server, type Socket, createConnection, createServer } from 'node:net';
import { createInterface } from 'node:readline';

export interface ControlRequest {
  command: 'status' | 'sync' | 'ping';
}

export type ControlReply = { ok: true; result: unknown } | { ok: false; error: string };

export interface ControlEvent {
  event: 'ended';
  error?: string;
}

/** Longer lines are not ours: the connection is closed. */
const REQUEST_BYTES_MAX = 64 * 1024;

export type ControlHandler = (request: ControlRequest) => Promise<unknown>;

export class ControlServer {
  readonly #server: Server;
  readonly #connections = new Set<Socket>();

  constructor(path: string, handler: ControlHandler) {
    this.#server = createServer((socket) => {
      this.#connections.add(socket);
      socket.on('close', () => this.#connections.delete(socket));
      // A client that went away while we answered is its own affair.
      socket.on('error', () => socket.destroy());
      void serve(socket, handler);
    });
    // The name is this process's own number: what is there was left by a killed daemon that had it before.
    rmSync(path, { force: true });
    this.#server.listen(path);
  }

  ready(): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#server.listening) resolve();
      this.#server.once('listening', resolve);
      this.#server.once('error', reject);
    });
  }

  /** Tell everyone and close. */
  async end(event: ControlEvent): Promise<void> {
    const line = `${JSON.stringify(event)}\n`;
    const flushed = [...this.#connections].map(
      (socket) => new Promise<void>((resolve) => void socket.end(line, resolve)),
    );
    this.#server.close();
    await Promise.all(flushed);
    for (const socket of this.#connections) socket.destroy();
  }
}

async function serve(socket: Socket, handler: ControlHandler): Promise<void> {
  let pending = '';
  socket.setEncoding('utf8');
  for await (const chunk of socket as AsyncIterable<string>) {
    pending += chunk;
    if (pending.length > REQUEST_BYTES_MAX) {
      socket.destroy();
      return;
    }
    const lines = pending.split('\n');
    pending = lines.pop() ?? '';
    for (const line of lines) {
      const reply = await answer(line, handler);
      if (!socket.destroyed) socket.write(`${JSON.stringify(reply)}\n`);
    }
  }
}

async function answer(line: string, handler: ControlHandler): Promise<ControlReply> {
  try {
    return { ok: true, result: await handler(JSON.parse(line) as ControlRequest) };
  } catch (error) {
    return { ok: false, error: error instanceof Error ? error.message : String(error) };
  }
}

export class ControlClient {
  readonly #socket: Socket;
  readonly #waiting: ((reply: ControlReply) => void)[] = [];
  /** Why the daemon ended, if it said so and something was wrong. */
  endedError: string | undefined;
  /** Fulfilled when the daemon has closed the connection. */
  readonly closed: Promise<void>;

  private constructor(socket: Socket) {
    this.#socket = socket;
    const lines = createInterface({ input: socket });
    lines.on('line', (line) => this.#take(line));
    this.closed = new Promise((resolve) => {
      socket.on('error', () => socket.destroy());
      socket.on('close', () => {
        resolve();
        for (const waiting of this.#waiting.splice(0)) {
          waiting({ ok: false, error: 'the daemon has gone' });
        }
      });
    });
  }

  /** undefined: nobody listens there. */
  static connect(path: string): Promise<ControlClient | undefined> {
    return new Promise((resolve) => {
      const socket = createConnection(path);
      socket.once('error', () => resolve(undefined));
      socket.once('connect', () => {
        socket.removeAllListeners('error');
        resolve(new ControlClient(socket));
      });
    });
  }

  request(command: ControlRequest['command']): Promise<ControlReply> {
    return new Promise((resolve) => {
      if (this.#socket.destroyed) {
        resolve({ ok: false, error: 'the daemon has gone' });
        return;
      }
      this.#waiting.push(resolve);
      this.#socket.write(`${JSON.stringify({ command })}\n`);
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #take(line: string): void {
    const message = JSON.parse(line) as ControlReply | ControlEvent;
    if ('event' in message) this.endedError = message.error;
    else this.#waiting.shift()?.(message);
  }
}
