/** Limits of the mounted door, each with its reason. */

/** Bytes of data in one WRITE: 256 pages, the most the kernel takes without a sysctl change. */
export const MAX_WRITE_BYTES = 1 << 20;
export const MAX_PAGES = 256;

/** Bytes of read-ahead we allow; the kernel takes the lesser of this and its own setting. */
export const MAX_READAHEAD_BYTES = 1 << 20;

/**
 * Background requests (read-ahead, write-back, RELEASE) in flight. They share one queue with the
 * requests somebody waits for, so more of them means a longer wait; fewer leave the disk idle.
 */
export const MAX_BACKGROUND = 16;
export const CONGESTION_THRESHOLD = 12;

/**
 * Requests that wait for host I/O at one time; above it nothing is read from /dev/fuse until one
 * ends. Each holds two arenas of 1 MiB of address space, of which only touched pages are real.
 */
export const PARKED_MAX = 64;

/** Requests served between two turns of the event loop while others wait for host I/O. */
export const TURN_REQUESTS = 8;

/** Seconds that entries, attributes and absences stay cached: 68 years, as good as for ever. */
export const CACHE_SECONDS = 0x7fff_ffff;

/** The same where changes beneath could go unnoticed: what other FUSE filesystems use throughout. */
export const INCOHERENT_CACHE_SECONDS = 1;

/** Sorted listings kept, so that a large directory is not read again for each chunk. */
export const LISTINGS_MAX = 32;
/** Entries in all of them together: bounds their memory (21 bytes an entry and its name). */
export const LISTING_ENTRIES_MAX = 400_000;

/**
 * Entries of one listing that READDIRPLUS looks up; those after them are given as names alone. Who lists
 * mostly uses the names, and a lookup here costs a quarter of one by request; but a list of a million
 * names must not make a million known inodes.
 */
export const PLUS_ENTRIES_MAX = 8192;

/** The largest errno a reply may carry; the kernel refuses more and leaves the request hanging. */
export const REPLY_ERRNO_MAX = 511;

/** Log lines about one kind of broken reply or request: after these only the counter moves. */
export const COMPLAINTS_MAX = 20;

/**
 * Microseconds that a wait for the next request looks before it sleeps (idle-wait.ts). A busy caller asks
 * again 20 to 30 µs after an answer (docs/decisions/0005); the most leaves it room to compute between.
 */
export const LOOK_MIN_US = 16;
export const LOOK_MAX_US = 128;

/**
 * When memory is given back (give-back.ts). Inodes forgotten since the last time, at least: some 6 MB.
 * As many times those still known. Milliseconds without a request before: long for a busy program,
 * short for a person.
 */
export const GIVE_BACK_NODES_MIN = 16_384;
export const GIVE_BACK_RATIO = 2;
export const GIVE_BACK_IDLE_MS = 1000;
