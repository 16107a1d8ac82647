// What Linux has and the Glibc module hides behind _GNU_SOURCE: declarations and constants, and getopt_long,
// whose results are C globals that Swift does not let anyone touch.
#ifndef IMGFS_CLINUX_SHIM_H
#define IMGFS_CLINUX_SHIM_H

#include <getopt.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/stat.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/types.h>

// <fcntl.h> and <unistd.h> would bring this module its own copies of the Glibc module's types.
long syscall(long number, ...);
int fallocate(int descriptor, int mode, off_t offset, off_t byte_count);
ssize_t copy_file_range(int in, off_t *in_offset, int out, off_t *out_offset, size_t byte_count, unsigned flags);

// <malloc.h> brings <stdio.h>.
int malloc_trim(size_t kept_byte_count);

// <sched.h> would bring types of the Glibc module's, too.
int setns(int descriptor, int kind);
enum { IMGFS_CLONE_NEWNS = 0x20000 };

/// Starts a new command line.
static inline void imgfs_getopt_restart(void) { optind = 0; }
/// The argument that the next call looks at.
static inline int imgfs_getopt_next(void) { return optind; }
/// The value of the last option.
static inline const char *imgfs_getopt_value(void) { return optarg; }
/// The letter that is no option, 0 where a long name was wrong.
static inline int imgfs_getopt_letter(void) { return optopt; }

/// Lets a range of one file stand for the same blocks as a range of another one (FICLONERANGE).
static inline int imgfs_clone_range(int source, uint64_t source_offset, int target, uint64_t offset, uint64_t count) {
  struct file_clone_range range = {source, source_offset, count, offset};
  return ioctl(target, FICLONERANGE, &range);
}

/// Sets the flag that turns off copy-on-write. ioctl takes variable arguments, which Swift does not call.
static inline int imgfs_set_nocow(int descriptor) {
  int flags = 0;
  if (ioctl(descriptor, FS_IOC_GETFLAGS, &flags) != 0) return -1;
  flags |= FS_NOCOW_FL;
  return ioctl(descriptor, FS_IOC_SETFLAGS, &flags);
}

/// Sets the bytes by which a file's room is to grow.
static inline int imgfs_set_extent_size_hint(int descriptor, unsigned byte_count) {
  struct fsxattr attributes;
  if (ioctl(descriptor, FS_IOC_FSGETXATTR, &attributes) != 0) return -1;
  attributes.fsx_xflags |= FS_XFLAG_EXTSIZE;
  attributes.fsx_extsize = byte_count;
  return ioctl(descriptor, FS_IOC_FSSETXATTR, &attributes);
}

/// What O_DIRECT wants addresses, and offsets and lengths, to be multiples of. -1 where the system does not tell.
static inline int imgfs_direct_alignment(int descriptor, unsigned *memory, unsigned *offset) {
#ifdef STATX_DIOALIGN
  struct statx status;
  if (syscall(SYS_statx, descriptor, "", 0x1000 /* AT_EMPTY_PATH */, STATX_DIOALIGN, &status) != 0) return -1;
  if (!(status.stx_mask & STATX_DIOALIGN) || status.stx_dio_offset_align == 0) return -1;
  *memory = status.stx_dio_mem_align;
  *offset = status.stx_dio_offset_align;
  return 0;
#else
  return -1;
#endif
}

/// What is at a name, a link itself for a link, and at the folder for "": device and mode. What the kernel knows is enough: a file
/// system that other programs serve is not asked.
static inline int imgfs_look_without_asking(
  int folder, const char *name, unsigned *major, unsigned *minor, unsigned *mode) {
  struct statx status;
  // AT_EMPTY_PATH, AT_STATX_DONT_SYNC, AT_NO_AUTOMOUNT, AT_SYMLINK_NOFOLLOW
  if (syscall(SYS_statx, folder, name, 0x1000 | 0x4000 | 0x800 | 0x100, STATX_TYPE, &status) != 0) return -1;
  *major = status.stx_dev_major;
  *minor = status.stx_dev_minor;
  *mode = status.stx_mode;
  return 0;
}

/// Bytes of a block device's sector, or -1.
static inline int imgfs_sector_size(int descriptor) {
  int byte_count;
  return ioctl(descriptor, BLKSSZGET, &byte_count) == 0 ? byte_count : -1;
}

#if defined(__aarch64__) || defined(__arm__)
enum { IMGFS_O_DIRECT = 0x10000 };
#else
enum { IMGFS_O_DIRECT = 0x4000 };
#endif
/// Together with O_DIRECTORY it is O_TMPFILE.
enum { IMGFS_O_TMPFILE_BIT = 020000000 };
enum { IMGFS_SEEK_DATA = 3, IMGFS_SEEK_HOLE = 4 };
/// A command of fcntl: bytes that a pipe holds.
enum { IMGFS_SETPIPE_SZ = 1031 };

// O_PATH of all processors that Swift knows.
enum { IMGFS_O_PATH = 010000000, IMGFS_AT_FDCWD = -100 };

#endif
