// What Linux has and the Glibc module hides behind _GNU_SOURCE: declarations and constants only.
#ifndef IMGFS_CLINUX_SHIM_H
#define IMGFS_CLINUX_SHIM_H

#include <linux/falloc.h>
#include <sys/types.h>

int fallocate(int descriptor, int mode, off_t offset, off_t byte_count);

enum { IMGFS_SEEK_DATA = 3, IMGFS_SEEK_HOLE = 4 };

#endif
