/** A device number as userspace holds it (glibc's makedev): minor and major bits interleaved. */
export function decodeDevice(device: number): { major: number; minor: number } {
  const high = Math.floor(device / 0x1_0000_0000);
  const low = device >>> 0;
  return {
    major: ((low >>> 8) & 0xfff) | (high & ~0xfff),
    minor: (low & 0xff) | ((low >>> 12) & ~0xff),
  };
}
