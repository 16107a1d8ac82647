// The doors to libfuse's low-level API, and to what Linux has for mounting and the Glibc module leaves out.
// _FILE_OFFSET_BITS stays unset: on the 64-bit machines that Swift runs on off_t has 64 bits anyway, and
// setting it clashes with the Glibc module.
#ifndef IMGFS_CFUSE_SHIM_H
#define IMGFS_CFUSE_SHIM_H

// The C library's types belong to the Glibc module, also where this one is read first.
#pragma clang module import SwiftGlibc

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

/// fuse_session_loop_mt is a versioned macro, which Swift cannot see.
static inline int imgfs_session_loop_mt(struct fuse_session *session, struct fuse_loop_config *config) {
  return fuse_session_loop_mt(session, config);
}

/// From libfuse 3.17 on fuse_session_new is an inline function over a macro of its own name, which Swift does not
/// import either.
static inline struct fuse_session *imgfs_session_new(
  struct fuse_args *arguments, const struct fuse_lowlevel_ops *callbacks, size_t callbacksSize, void *userData) {
  return fuse_session_new(arguments, callbacks, callbacksSize, userData);
}

/// <fcntl.h> would clash with the Glibc module, which leaves these out.
enum { IMGFS_O_PATH = 010000000, IMGFS_AT_FDCWD = -100 };
enum { IMGFS_FALLOC_KEEP_SIZE = 1, IMGFS_FALLOC_PUNCH_HOLE = 2, IMGFS_FALLOC_ZERO_RANGE = 16 };
int sync_file_range(int descriptor, off_t offset, off_t count, unsigned flags);
/// Waits for what is under way, writes, and waits.
enum { IMGFS_SYNC_FILE_RANGE_ALL = 7 };
pid_t gettid(void);

/// The headers of these would take timespec from the Glibc module.
unsigned gnu_dev_major(unsigned long long device);
unsigned gnu_dev_minor(unsigned long long device);
int prctl(int option, ...);
long syscall(long number, ...);

/// Neither this thread nor what it starts gains privileges by a program that it runs (PR_SET_NO_NEW_PRIVS).
static inline int imgfs_gain_no_privileges(void) { return prctl(38, 1, 0, 0, 0); }

/// Processes of the same user neither trace this one nor read its memory (PR_SET_DUMPABLE).
static inline int imgfs_forbid_tracing(void) { return prctl(4, 0, 0, 0, 0); }

/// Whether a process has a thread.
static inline int imgfs_is_thread(pid_t process, pid_t thread) {
  return syscall(SYS_tgkill, process, thread, 0) == 0;
}

/// The number of the mount that is at a path, or at an open folder for "", which no other mount ever has: since Linux 6.8, -1 before.
/// The file system is not asked.
static inline int imgfs_mount_number(int folder, const char *path, uint64_t *number) {
  const unsigned mount_number = 0x4000;  // STATX_MNT_ID_UNIQUE
  struct {
    uint32_t mask;
    uint32_t before[35];
    uint64_t mount;
    uint64_t after[13];
  } status;
  _Static_assert(sizeof status == 256, "struct statx");
  // AT_EMPTY_PATH, AT_STATX_DONT_SYNC, AT_NO_AUTOMOUNT, AT_SYMLINK_NOFOLLOW
  if (syscall(SYS_statx, folder, path, 0x1000 | 0x4000 | 0x800 | 0x100, mount_number, &status) != 0) return -1;
  if (!(status.mask & mount_number)) return -1;
  *number = status.mount;
  return 0;
}

/// Without the privilege, or on kernels before 5.6, nothing happens.
static inline void imgfs_become_io_flusher(void) { prctl(57 /* PR_SET_IO_FLUSHER */, 1, 0, 0, 0); }

enum { IMGFS_SEEK_DATA = 3, IMGFS_SEEK_HOLE = 4 };

#endif
