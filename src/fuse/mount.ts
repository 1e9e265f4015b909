/**
 * The mount itself: /dev/fuse opened and attached, by mount(2) where permitted, else by fusermount3.
 *
 * The kernel checks permissions (default_permissions): a filesystem behind this door judges none.
 * Left out: fuseblk; remounting.
 */
import { spawnSync } from 'node:child_process';
import { Errno } from '../abi/errno.ts';
import { AT_FDCWD, O_RDWR } from '../abi/fcntl.ts';
import { S_IFDIR } from '../abi/mode.ts';
import { fail, FsError } from '../kernel/error.ts';
import { MS_NOATIME, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, tryMount } from '../sys/mount.ts';
import { socketPair } from '../sys/fuse-device.ts';
import { tryClose, tryOpenat } from '../sys/open.ts';
import { tryReceiveDescriptor } from '../sys/socket.ts';
import { MAX_WRITE_BYTES } from './limits.ts';

export interface FuseMount {
  /** Where: a path, one char a byte. */
  target: string;
  /** What findmnt shows as the source. */
  source: string;
  /** The type is `fuse.SUBTYPE`. */
  subtype: string;
  /** The S_IFMT bits of the root: S_IFDIR if not given. */
  rootType?: number;
  options: {
    /** Others than the owner may enter. */
    allowOther?: boolean;
    readOnly?: boolean;
    nosuid?: boolean;
    nodev?: boolean;
    noexec?: boolean;
    noatime?: boolean;
  };
}

/** Who owns the mount: with allow_other absent, only processes of this user enter. */
export interface MountOwner {
  uid: number;
  gid: number;
}

const ourselves = (): MountOwner => ({ uid: process.geteuid!(), gid: process.getegid!() });

function flagsOf({ options }: FuseMount): number {
  let flags = 0;
  if (options.readOnly === true) flags |= MS_RDONLY;
  if (options.nosuid === true) flags |= MS_NOSUID;
  if (options.nodev === true) flags |= MS_NODEV;
  if (options.noexec === true) flags |= MS_NOEXEC;
  if (options.noatime === true) flags |= MS_NOATIME;
  return flags;
}

/** What an administrator has to do: the device is not part of what a mount's user asked for. */
function deviceAdvice(errno: number): string {
  if (errno === Errno.ENOENT || errno === Errno.ENODEV || errno === Errno.ENXIO) {
    return '/dev/fuse is not there; load the fuse module (modprobe fuse), or pass the device into this container';
  }
  if (errno === Errno.EACCES || errno === Errno.EPERM) {
    return '/dev/fuse may not be opened by this user; it is mode 0666 where udev makes it (chmod 666 /dev/fuse)';
  }
  return '/dev/fuse';
}

/** Mount. The descriptor of /dev/fuse to serve. Errors: what open(2) and mount(2) give. */
export function mountFuse(mount: FuseMount, owner: MountOwner = ourselves()): number {
  const fd = tryOpenat(AT_FDCWD, '/dev/fuse', O_RDWR);
  if (fd < 0) throw new FsError(-fd, deviceAdvice(-fd));
  const fields = [
    `fd=${fd}`,
    `rootmode=${(mount.rootType ?? S_IFDIR).toString(8)}`,
    `user_id=${owner.uid}`,
    `group_id=${owner.gid}`,
    'default_permissions',
    `max_read=${MAX_WRITE_BYTES}`,
  ];
  if (mount.options.allowOther === true) fields.push('allow_other');
  const type = `fuse.${mount.subtype}`;
  const result = tryMount(mount.source, mount.target, type, flagsOf(mount), fields.join(','));
  if (result >= 0) return fd;
  tryClose(fd);
  if (result !== -Errno.EPERM) throw new FsError(-result, `mount of ${type}`);
  return mountByHelper(mount);
}

/**
 * fusermount3, which is set-uid root: it opens and mounts, and sends the descriptor over a socket
 * whose number is in _FUSE_COMMFD.
 */
function mountByHelper(mount: FuseMount): number {
  const [ours, theirs] = socketPair();
  const { options } = mount;
  const fields = ['default_permissions', `max_read=${MAX_WRITE_BYTES}`, `subtype=${mount.subtype}`];
  fields.push(`fsname=${mount.source.replace(/[\\,]/g, '\\$&')}`);
  if (options.allowOther === true) fields.push('allow_other');
  if (options.readOnly === true) fields.push('ro');
  if (options.noexec === true) fields.push('noexec');
  if (options.noatime === true) fields.push('noatime');
  // Arguments of a child are encoded as UTF-8 by Node.
  const target = Buffer.from(mount.target, 'latin1').toString();
  try {
    const helper = spawnSync('fusermount3', ['-o', fields.join(','), '--', target], {
      stdio: ['ignore', 'ignore', 'pipe', theirs],
      env: { ...process.env, _FUSE_COMMFD: '3' },
    });
    if (helper.error !== undefined || helper.status !== 0) {
      throw new FsError(Errno.EPERM, String(helper.stderr ?? helper.error?.message ?? '').trim());
    }
    tryClose(theirs);
    const fd = tryReceiveDescriptor(ours);
    if (fd < 0) fail(-fd);
    return fd;
  } finally {
    tryClose(ours);
  }
}
