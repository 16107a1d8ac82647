// A library to be preloaded into a program (LD_PRELOAD): it stands between the program and the system calls by which files
// change. Only files below one folder count. What it does is said by the environment (Tests/TestSupport/HostCalls.swift):
//
//   IMGFS_CALLS_FOLDER   the folder, without symbolic links
//   IMGFS_CALLS_RECORD   a file that gets each change and each flush, in order, as records (struct imgfs_call_record)
//   IMGFS_CALLS_LIST     a file that gets a line for each call that counts: its kind, the file's name, what came of it
//   IMGFS_CALLS_FAIL     "NUMBER ERRNO KINDS HOW": the call of this number (0 is the first) of these kinds (a letter each)
//                        fails; HOW: `o` once, `e` for ever from there on; `t`: a write that fails is done in part
//   IMGFS_CALLS_DISTURB  a seed: transfers are short, calls are interrupted, pipes are not ready, as chance has it
#ifndef IMGFS_HOST_CALLS_H
#define IMGFS_HOST_CALLS_H

#include <stdint.h>

// Behind it stand the file's name and then the bytes.
struct imgfs_call_record {
  uint32_t kind;
  uint32_t name_count;
  uint64_t offset;
  uint64_t count;
  uint64_t byte_count;
};

enum imgfs_call_kind {
  IMGFS_CALL_WRITE = 1,
  IMGFS_CALL_ZEROS = 2,
  IMGFS_CALL_RESIZE = 3,
  IMGFS_CALL_FLUSH = 4,
  IMGFS_CALL_CREATE = 5,
  IMGFS_CALL_UNLINK = 6,
};

#endif
