/** The bounds of fs/host, with their reasons. */

/** Descriptors kept from the caches: stdio, /dev/fuse, sockets, those in use by one call, pins. */
export const RESERVED_DESCRIPTORS = 256;
/** Descriptors cached at most: each holds an inode and some hundred bytes of the kernel's memory. */
export const CACHED_DESCRIPTORS_MAX = 32768;
/** Descriptors cached at least, however low the limit: a deep path needs its directories open. */
export const CACHED_DESCRIPTORS_MIN = 32;
/** Further names that an inode remembers: enough for trees made by `cp -l`, not for link farms. */
export const KNOWN_NAMES_MAX = 8;
/** Bytes copied on the spot; more may take long enough to be worth a thread. */
export const COPY_ON_THE_SPOT_BYTES = 1 << 20;
/** Bytes a symlink's target may have. */
export const SYMLINK_TARGET_MAX = 4095;
/**
 * A sync as short as this is made on the spot (sync-pace.ts): some times longer than
 * going to a thread and back, and short enough for others to wait for it.
 */
export const SYNC_ON_THE_SPOT_NSEC = 2_000_000;
/** Bytes written since the last sync, at most, for the next one to be made on the spot. */
export const SYNC_ON_THE_SPOT_BYTES = 1 << 20;
