/** recvmsg(2) of a descriptor that another process sends: SCM_RIGHTS. */
import { Errno } from '../abi/errno.ts';
import { Scratch } from './memory.ts';
import { libc, outcome } from './native.ts';

const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CMSG_CLOEXEC = 0x4000_0000;

const recvmsgCall = libc('int64_t recvmsg(int fd, uintptr_t message, int flags)');
/**
 * One block: struct msghdr at 0 (56 bytes), its iovec at 64, the byte of data at 80, and the
 * control buffer at 96: struct cmsghdr is u64 length, i32 level, i32 type, then descriptors.
 */
const memory = new Scratch(160);
const IOVEC_AT = 64;
const DATA_AT = 80;
const CONTROL_AT = 96;
const CONTROL_BYTES = 64;

/**
 * Wait for one message. The descriptor in it, close-on-exec; or -errno: -ENOTCONN the other side has
 * closed, -EPROTO a message without a descriptor.
 */
export function tryReceiveDescriptor(socket: number): number {
  memory.buffer.fill(0);
  memory.putU64(4, memory.address + IOVEC_AT);
  memory.putU64(6, 1);
  memory.putU64(8, memory.address + CONTROL_AT);
  memory.putU64(10, CONTROL_BYTES);
  memory.putU64(IOVEC_AT / 4, memory.address + DATA_AT);
  memory.putU64(IOVEC_AT / 4 + 2, 1);
  let length: number;
  do length = outcome(recvmsgCall(socket, memory.address, MSG_CMSG_CLOEXEC));
  while (length === -Errno.EINTR);
  if (length < 0) return length;
  if (length === 0) return -Errno.ENOTCONN;
  const control = CONTROL_AT / 4;
  const isRights = memory.u32[control + 2] === SOL_SOCKET && memory.u32[control + 3] === SCM_RIGHTS;
  return isRights && memory.u64(control) >= 20 ? memory.i32[control + 4]! : -Errno.EPROTO;
}
