/**
 * For tests: inodes whose Nth changing call fails, and, in a crash, every one after it. A torn crash
 * lets half of a last write through.
 */
import { Errno } from '../abi/errno.ts';
import { FsError } from '../kernel/error.ts';
import type { Task } from '../kernel/task.ts';
import type { FileSystem, Inode, IoBuffer } from '../vfs/inode-operations.ts';

const CHANGING = new Set([
  'create',
  'mkdir',
  'mknod',
  'symlink',
  'link',
  'unlink',
  'rmdir',
  'rename',
  'setattr',
  'write',
  'fsync',
  'setxattr',
  'removexattr',
  'copyRange',
  'fallocate',
  'syncfs',
]);

export type FaultKind = 'crash' | 'torn' | 'error';

export class Faults {
  readonly kind: FaultKind;
  /** 1 is the first. */
  readonly at: number;
  count = 0;
  #wrapped = new WeakMap<object, object>();
  #targets = new WeakMap<object, object>();

  constructor(kind: FaultKind, at: number) {
    this.kind = kind;
    this.at = at;
  }

  get hit(): boolean {
    return this.count >= this.at;
  }

  wrap<T extends Inode | FileSystem>(target: T): T {
    const known = this.#wrapped.get(target);
    if (known !== undefined) return known as T;
    const proxy = new Proxy(target, {
      get: (_, key) => {
        const value = Reflect.get(target, key, target) as unknown;
        if (key === 'fs') return this.wrap(value as FileSystem);
        if (typeof value !== 'function') return value;
        const method = value as (...args: unknown[]) => unknown;
        return (...args: unknown[]): unknown => this.#call(target, String(key), method, args);
      },
    });
    this.#wrapped.set(target, proxy);
    this.#targets.set(proxy, target);
    return proxy;
  }

  #call(
    target: object,
    name: string,
    method: (...args: unknown[]) => unknown,
    args: unknown[],
  ): unknown {
    const plain = args.map((arg) =>
      typeof arg === 'object' && arg !== null ? (this.#targets.get(arg) ?? arg) : arg,
    );
    if (name === 'forget') return method.apply(target, plain);
    return this.#task(target, name, method, plain);
  }

  *#task(
    target: object,
    name: string,
    method: (...args: unknown[]) => unknown,
    args: unknown[],
  ): Task<unknown> {
    if (CHANGING.has(name)) {
      this.count++;
      const isLast = this.count === this.at;
      if (isLast && this.kind === 'torn' && name === 'write') {
        const { bytes, offset, length } = args[0] as IoBuffer;
        yield* method.apply(target, [
          { bytes, offset, length: length >> 1 },
          args[1],
        ]) as Task<unknown>;
      }
      if (isLast || (this.kind !== 'error' && this.count > this.at))
        throw new FsError(Errno.EIO, 'injected');
    }
    const result = yield* method.apply(target, args) as Task<unknown>;
    return isInode(result) ? this.wrap(result) : result;
  }
}

const isInode = (value: unknown): value is Inode =>
  typeof value === 'object' && value !== null && 'lookup' in value && 'fs' in value;
