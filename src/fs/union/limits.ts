/** Limits of the union, each with its reason. */

/** Bytes copied between two chances for other requests: bounds how long a big copy-up holds the engine. */
export const COPY_CHUNK_BYTES = 16 * 1024 * 1024;

/** How often a copy-up starts again because the lower changed meanwhile, before it is EBUSY. */
export const COPY_TRIES = 3;
