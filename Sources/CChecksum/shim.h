// The processor's own CRC-32C (Castagnoli), where it has one.
#ifndef IMGFS_CCHECKSUM_H
#define IMGFS_CCHECKSUM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)

static inline int checksum_has_crc32c(void) {
  return __builtin_cpu_supports("sse4.2") != 0;
}

// Goes on from `state` over `count` bytes; the inversions before and after are the caller's.
__attribute__((target("sse4.2")))
static inline uint32_t checksum_crc32c(uint32_t state, const void *bytes, size_t count) {
  const unsigned char *next = (const unsigned char *)bytes;
  uint64_t wide = state;
  while (count >= 8) {
    uint64_t word;
    memcpy(&word, next, sizeof word);
    wide = __builtin_ia32_crc32di(wide, word);
    next += 8;
    count -= 8;
  }
  state = (uint32_t)wide;
  while (count > 0) {
    state = __builtin_ia32_crc32qi(state, *next);
    next += 1;
    count -= 1;
  }
  return state;
}

#else

static inline int checksum_has_crc32c(void) { return 0; }

static inline uint32_t checksum_crc32c(uint32_t state, const void *bytes, size_t count) {
  (void)bytes;
  (void)count;
  return state;
}

#endif
#endif
