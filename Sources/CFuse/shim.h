// The door to libfuse's low-level API. _FILE_OFFSET_BITS stays unset: on the 64-bit machines that Swift
// runs on off_t has 64 bits anyway, and setting it clashes with the Glibc module.
#ifndef IMGFS_CFUSE_SHIM_H
#define IMGFS_CFUSE_SHIM_H

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>

/// fuse_session_loop_mt is a versioned macro, which Swift cannot see.
static inline int imgfs_session_loop_mt(struct fuse_session *session, struct fuse_loop_config *config) {
  return fuse_session_loop_mt(session, config);
}

#endif
