/**
 * What the handlers of requests share: the filesystem, the nodes the kernel knows, and the counters.
 */
import { Errno } from '../abi/errno.ts';
import { fail } from '../kernel/error.ts';
import { Mutex } from '../kernel/locking/mutex.ts';
import type { Task } from '../kernel/task.ts';
import type { FileSystem, Inode } from '../vfs/inode-operations.ts';
import { type Agreement, type DataMode, agreedOn } from './init.ts';
import { InitBit } from './abi.ts';
import { keyedNameHash, ListingCache, type NameHash } from './dirstream.ts';
import { COMPLAINTS_MAX } from './limits.ts';
import { NodeTable } from './nodes.ts';
import { type BackingDevice, OpenFiles } from './open-files.ts';
import type { Request } from './request.ts';

/** All that is counted. Plain numbers, for one JSON record. */
export interface DoorCounters {
  /** Requests read, whatever became of them. */
  requests: number;
  /** Requests by opcode. */
  byOpcode: Float64Array;
  /** Replies with an errno, misses included. */
  errors: number;
  /** Requests whose record was malformed. */
  malformed: number;
  /** Requests of unknown opcodes. */
  unknown: number;
  /** Replies whose error field was not legal and became EIO. */
  illegalReplies: number;
  /** Replies that the kernel did not take. */
  refusedReplies: number;
  /** Handlers that threw what is not an errno: our bugs. */
  bugs: number;
  /** Requests that waited for host I/O. */
  parked: number;
  /** Opens of files that the kernel reads and writes itself. */
  passedOpens: number;
  /** Bytes by READ and WRITE. */
  bytesRead: number;
  bytesWritten: number;
}

const OPCODES = 64;
const FLUSH_LOCK = { name: 'door.flushLock', nestable: false };

function noCounts(): DoorCounters {
  return {
    requests: 0,
    byOpcode: new Float64Array(OPCODES),
    errors: 0,
    malformed: 0,
    unknown: 0,
    illegalReplies: 0,
    refusedReplies: 0,
    bugs: 0,
    parked: 0,
    passedOpens: 0,
    bytesRead: 0,
    bytesWritten: 0,
  };
}

export interface DoorOptions {
  dataMode: DataMode;
  readOnly: boolean;
  /** Key of the directory cookies: any two numbers, best unknown to others. */
  hashKey: readonly [number, number];
  /** Requests and replies, a line each. */
  debug?: ((line: string) => void) | undefined;
  /** Where the kernel takes backing files for passthrough. */
  backing?: BackingDevice | undefined;
  /** Things that should not happen. */
  complain: (line: string) => void;
  /** Hands a notification to another thread, which writes it. */
  notify: (record: Uint8Array) => void;
  /** Writes a notification on another thread and waits for that: 0 or more, or -errno. */
  notifyAndWait: (record: Uint8Array) => Task<number>;
}

export class Door {
  readonly fs: FileSystem;
  readonly options: DoorOptions;
  readonly nodes: NodeTable;
  readonly openFiles: OpenFiles;
  readonly listings = new ListingCache();
  readonly nameHash: NameHash;
  readonly counters: DoorCounters = noCounts();
  /** One flush at a time: each holds a thread of the pool until we have served the WRITEs it causes. */
  readonly flushLock = new Mutex(FLUSH_LOCK);
  /** Undefined until INIT. */
  agreement: Agreement | undefined;
  /** DESTROY came: nothing follows. */
  destroyed = false;
  readonly #complaints = new Map<string, number>();

  constructor(fs: FileSystem, options: DoorOptions) {
    this.fs = fs;
    this.options = options;
    this.nodes = new NodeTable(fs.root, (inode) => {
      this.listings.drop(inode);
      this.openFiles.drop(inode);
    });
    this.openFiles = new OpenFiles(options.backing, (line) => this.complain('passthrough', line));
    this.nameHash = keyedNameHash(...options.hashKey);
  }

  /** The inode that a request is about. Errors: ESTALE the kernel should not know that id. */
  node(request: Request): Inode {
    return this.nodes.find(request.nodeid) ?? fail(Errno.ESTALE);
  }

  /** How long the kernel may keep the attributes of an inode that this reply tells. */
  attrSeconds(request: Request, inode: Inode | undefined): number {
    return inode !== undefined && this.openFiles.wasPassed(inode) ? 0 : request.cacheSeconds;
  }

  agreed(flag: keyof typeof InitBit): boolean {
    return this.agreement !== undefined && agreedOn(this.agreement, InitBit[flag]);
  }

  /** Log the first few of a kind. */
  complain(kind: string, line: string): void {
    const count = (this.#complaints.get(kind) ?? 0) + 1;
    this.#complaints.set(kind, count);
    if (count <= COMPLAINTS_MAX) this.options.complain(`${kind}: ${line}`);
    if (count === COMPLAINTS_MAX) this.options.complain(`${kind}: further ones are only counted`);
  }
}
