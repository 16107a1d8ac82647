// Counts this thread's heap allocations. Linked into a test program, its malloc family stands in front
// of the C library's own and hands every call on.
#ifndef IMGFS_ALLOCATION_COUNTER_H
#define IMGFS_ALLOCATION_COUNTER_H

#include <stdbool.h>
#include <stddef.h>

/// Whether anything is counted: not in a build with a sanitizer.
bool imgfs_counts_allocations(void);
/// Allocations of the calling thread since it started.
size_t imgfs_allocation_count(void);
/// Bytes that the calling thread has asked for since it started.
size_t imgfs_allocated_byte_count(void);

/// From now on the calling thread's peak is found out anew.
void imgfs_start_measuring_peak(void);
/// Bytes that it had in use at most since then, beyond those of then.
size_t imgfs_peak_byte_count(void);

#endif
