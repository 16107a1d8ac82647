// What Linux has and the Glibc module hides behind _GNU_SOURCE: declarations and constants, and getopt_long,
// whose results are C globals that Swift does not let anyone touch.
#ifndef IMGFS_CLINUX_SHIM_H
#define IMGFS_CLINUX_SHIM_H

#include <getopt.h>
#include <linux/falloc.h>
#include <sys/types.h>

int fallocate(int descriptor, int mode, off_t offset, off_t byte_count);

/// Starts a new command line.
static inline void imgfs_getopt_restart(void) { optind = 0; }
/// The argument that the next call looks at.
static inline int imgfs_getopt_next(void) { return optind; }
/// The value of the last option.
static inline const char *imgfs_getopt_value(void) { return optarg; }

enum { IMGFS_SEEK_DATA = 3, IMGFS_SEEK_HOLE = 4 };

#endif
