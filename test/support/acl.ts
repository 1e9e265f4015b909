/** POSIX ACLs as extended attributes (linux/posix_acl_xattr.h), for tests to set and read. */

const TAGS = { userObj: 1, user: 2, groupObj: 4, group: 8, mask: 16, other: 32 } as const;

/** `[tag, permissions, id]`, in the order the kernel wants: by tag, then by id. */
export type AclEntry = readonly [keyof typeof TAGS, number, number?];

export function aclHex(entries: readonly AclEntry[]): string {
  const out = Buffer.alloc(4 + entries.length * 8);
  out.writeUInt32LE(2, 0);
  entries.forEach(([tag, permissions, id], i) => {
    out.writeUInt16LE(TAGS[tag], 4 + i * 8);
    out.writeUInt16LE(permissions, 6 + i * 8);
    out.writeUInt32LE(id ?? 0xffffffff, 8 + i * 8);
  });
  return out.toString('hex');
}
