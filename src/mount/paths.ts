/** Paths between Node's strings (UTF-16 of UTF-8) and the core's (one char per byte). */
export const bytesPath = (path: string): string => Buffer.from(path, 'utf8').toString('latin1');

export const textPath = (bytes: string): string => Buffer.from(bytes, 'latin1').toString('utf8');
