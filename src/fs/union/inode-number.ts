/**
 * Inode numbers of a union: those of the branch, made unique over branches of several filesystems.
 *
 * N1. An object keeps its number over copy-up and remount: a copied-up one has its origin's.
 * N2. Two objects never share one. Filesystem number k (in the order of first use among the
 *     branches) owns the range [k * 2^48, (k + 1) * 2^48); a branch number beyond 2^48 is given a
 *     number from a range of its own and is stable while mounted only.
 * cf. xino in overlayfs, which uses the high bits likewise.
 */
const SPACE = 2 ** 48;
/** 2^53 / 2^48 spaces; the last one is for numbers that do not fit. */
const OVERFLOW_SPACE = 31;

export class InodeNumbers {
  readonly #overflow = new Map<string, number>();
  #freshCount = 0;

  of(numberSpace: number, ino: number): number {
    // The usual case, without arithmetic: its result would be a double, boxed in every inode.
    if (numberSpace === 0 && ino < SPACE) return ino;
    if (ino < SPACE && numberSpace < OVERFLOW_SPACE) return numberSpace * SPACE + ino;
    const key = `${numberSpace}:${ino}`;
    let number = this.#overflow.get(key);
    if (number === undefined) {
      number = this.fresh();
      this.#overflow.set(key, number);
    }
    return number;
  }

  /** A number that nothing has: stable while mounted only. */
  fresh(): number {
    return OVERFLOW_SPACE * SPACE + this.#freshCount++;
  }
}
