#include "allocation_counter.h"

#include <errno.h>
#include <malloc.h>

// A sanitizer has functions of its own in the places of malloc and the others, and they go first.
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)

bool imgfs_counts_allocations(void) { return false; }
size_t imgfs_allocation_count(void) { return 0; }
size_t imgfs_allocated_byte_count(void) { return 0; }
void imgfs_start_measuring_peak(void) {}
size_t imgfs_peak_byte_count(void) { return 0; }

#else

bool imgfs_counts_allocations(void) { return true; }

// glibc's own names for what is replaced here.
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

// Initial-exec: the first use of the variable must not itself allocate.
static __thread size_t call_count __attribute__((tls_model("initial-exec")));
static __thread size_t byte_count __attribute__((tls_model("initial-exec")));

// What is in use, and the most that it was: less than nothing where other threads' memory is given back.
static __thread long live_count __attribute__((tls_model("initial-exec")));
static __thread long peak_count __attribute__((tls_model("initial-exec")));

size_t imgfs_allocation_count(void) { return call_count; }
size_t imgfs_allocated_byte_count(void) { return byte_count; }

void imgfs_start_measuring_peak(void) { live_count = peak_count = 0; }
size_t imgfs_peak_byte_count(void) { return (size_t)peak_count; }

static void *taken(void *memory) {
  if (memory) live_count += (long)malloc_usable_size(memory);
  if (live_count > peak_count) peak_count = live_count;
  return memory;
}

static void given_back(void *memory) {
  if (memory) live_count -= (long)malloc_usable_size(memory);
}

static void count(size_t bytes) {
  call_count += 1;
  byte_count += bytes;
}

void *malloc(size_t bytes) {
  count(bytes);
  return taken(__libc_malloc(bytes));
}

void *calloc(size_t items, size_t bytes) {
  count(items * bytes);
  return taken(__libc_calloc(items, bytes));
}

void *realloc(void *old, size_t bytes) {
  count(bytes);
  given_back(old);
  void *memory = __libc_realloc(old, bytes);
  // Where there is no room, the old piece stays.
  taken(memory || bytes == 0 ? memory : old);
  return memory;
}

void *memalign(size_t alignment, size_t bytes) {
  count(bytes);
  return taken(__libc_memalign(alignment, bytes));
}

void *aligned_alloc(size_t alignment, size_t bytes) {
  count(bytes);
  return taken(__libc_memalign(alignment, bytes));
}

int posix_memalign(void **result, size_t alignment, size_t bytes) {
  count(bytes);
  void *memory = taken(__libc_memalign(alignment, bytes));
  if (!memory) return ENOMEM;
  *result = memory;
  return 0;
}

void free(void *memory) {
  given_back(memory);
  __libc_free(memory);
}

#endif
