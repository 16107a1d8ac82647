#include "allocation_counter.h"

#include <errno.h>

// A sanitizer has functions of its own in the places of malloc and the others, and they go first.
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)

bool imgfs_counts_allocations(void) { return false; }
size_t imgfs_allocation_count(void) { return 0; }
size_t imgfs_allocated_byte_count(void) { return 0; }

#else

bool imgfs_counts_allocations(void) { return true; }

// glibc's own names for what is replaced here.
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

// Initial-exec: the first use of the variable must not itself allocate.
static __thread size_t call_count __attribute__((tls_model("initial-exec")));
static __thread size_t byte_count __attribute__((tls_model("initial-exec")));

size_t imgfs_allocation_count(void) { return call_count; }
size_t imgfs_allocated_byte_count(void) { return byte_count; }

static void count(size_t bytes) {
  call_count += 1;
  byte_count += bytes;
}

void *malloc(size_t bytes) {
  count(bytes);
  return __libc_malloc(bytes);
}

void *calloc(size_t items, size_t bytes) {
  count(items * bytes);
  return __libc_calloc(items, bytes);
}

void *realloc(void *old, size_t bytes) {
  count(bytes);
  return __libc_realloc(old, bytes);
}

void *memalign(size_t alignment, size_t bytes) {
  count(bytes);
  return __libc_memalign(alignment, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes) {
  count(bytes);
  return __libc_memalign(alignment, bytes);
}

int posix_memalign(void **result, size_t alignment, size_t bytes) {
  count(bytes);
  void *memory = __libc_memalign(alignment, bytes);
  if (!memory) return ENOMEM;
  *result = memory;
  return 0;
}

#endif
