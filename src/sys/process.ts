/** The process and its rights: limits, ids, prctl(2). */
import { Scratch } from './memory.ts';
import { libc, orFail, outcome } from './native.ts';

export const RLIMIT_NOFILE = 7;
export const PR_SET_PDEATHSIG = 1;
export const PR_SET_DUMPABLE = 4;
export const PR_SET_NAME = 15;
/** "I serve a filesystem that others write through": PR_SET_IO_FLUSHER, Linux 5.6. */
export const PR_SET_IO_FLUSHER = 57;

/** A limit that is none. */
export const RLIM_INFINITY = 2 ** 64;

const getrlimitCall = libc('int getrlimit(int resource, uintptr_t limit)');
const setrlimitCall = libc('int setrlimit(int resource, uintptr_t limit)');
const getpidCall = libc('int getpid()');
const getuidCall = libc('uint32_t getuid()');
const geteuidCall = libc('uint32_t geteuid()');
const getegidCall = libc('uint32_t getegid()');
const yieldCall = libc('int sched_yield()');
const prctlCall = libc('int prctl(int option, int64_t a, int64_t b, int64_t c, int64_t d)');
const setgroupsCall = libc('int setgroups(size_t count, uintptr_t groups)');
const setresuidCall = libc('int setresuid(uint32_t real, uint32_t effective, uint32_t saved)');
const setresgidCall = libc('int setresgid(uint32_t real, uint32_t effective, uint32_t saved)');
/** struct rlimit: u64 soft, hard. */
const limit = new Scratch(16);

export interface ResourceLimit {
  soft: number;
  hard: number;
}

export function getrlimit(resource: number): ResourceLimit {
  orFail(outcome(getrlimitCall(resource, limit.address)));
  return { soft: limit.u64(0), hard: limit.u64(2) };
}

export function trySetrlimit(resource: number, value: ResourceLimit): number {
  limit.putU64(0, value.soft);
  limit.putU64(2, value.hard);
  return outcome(setrlimitCall(resource, limit.address));
}

/** How many descriptors this process may have, after raising the soft limit to the hard one. */
export function raiseDescriptorLimit(): number {
  const { soft, hard } = getrlimit(RLIMIT_NOFILE);
  if (soft >= hard) return soft;
  return trySetrlimit(RLIMIT_NOFILE, { soft: hard, hard }) < 0 ? soft : hard;
}

export const getpid = (): number => getpidCall();
export const getuid = (): number => getuidCall();
export const geteuid = (): number => geteuidCall();
export const getegid = (): number => getegidCall();

/** sched_yield(2): let another thread go first that waits for this processor, if one does. */
export const yieldProcessor = (): void => void yieldCall();

export function tryPrctl(option: number, a = 0, b = 0, c = 0, d = 0): number {
  return outcome(prctlCall(option, a, b, c, d));
}

const CAPABILITY_VERSION_3 = 0x2008_0522;
export const CAP_FSETID = 4;
const capgetCall = libc('int capget(uintptr_t header, uintptr_t data)');
const capsetCall = libc('int capset(uintptr_t header, uintptr_t data)');
/** struct __user_cap_header_struct: version, pid. */
const capHeader = new Scratch(8);
/** Two of struct __user_cap_data_struct: effective, permitted, inheritable, 32 bits each. */
const capData = new Scratch(24);

function putCapHeader(): void {
  capHeader.u32[0] = CAPABILITY_VERSION_3;
  capHeader.u32[1] = 0;
}

/** Make a call while this thread does without a capability below 32. Its result, or -errno. */
export function tryWithoutCapability(capability: number, call: () => number): number {
  putCapHeader();
  const got = outcome(capgetCall(capHeader.address, capData.address));
  if (got < 0) return got;
  const effective = capData.u32[0]!;
  const bit = (1 << capability) >>> 0;
  if ((effective & bit) === 0) return call();
  capData.u32[0] = (effective & ~bit) >>> 0;
  const set = outcome(capsetCall(capHeader.address, capData.address));
  if (set < 0) return set;
  try {
    return call();
  } finally {
    capData.u32[0] = effective;
    orFail(outcome(capsetCall(capHeader.address, capData.address)));
  }
}

/** Become someone else for good: supplementary groups, group, user; all three ids of each. */
export function setIds(uid: number, gid: number, groups: readonly number[]): void {
  const list = new Scratch(Math.max(8, groups.length * 4));
  groups.forEach((group, slot) => (list.u32[slot] = group));
  orFail(outcome(setgroupsCall(groups.length, list.address)));
  orFail(outcome(setresgidCall(gid, gid, gid)));
  orFail(outcome(setresuidCall(uid, uid, uid)));
}
