// ISA-L packs a buffer at once with a context of 300 KiB that holds its state in plain fields. Swift would take their
// arrays for tuples of as many elements, so the context stays on this side.
#ifndef IMGFS_CISAL_H
#define IMGFS_CISAL_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <isa-l/igzip_lib.h>

typedef struct {
  struct isal_zstream stream;
  uint8_t level_buffer[ISAL_DEF_LVL3_EXTRA_LARGE];
} imgfs_isal;

/// A context for any number of buffers, one at a time; NULL without memory. `free` ends it.
static inline void *imgfs_isal_make(void) { return calloc(1, sizeof(imgfs_isal)); }

/// Packs a whole buffer at `level` 1 to 3, as zlib's stream or as plain deflate; the number of bytes, 0 where there is no
/// room for them.
static inline size_t imgfs_isal_pack(void *made, int level, int is_zlib, const void *source, size_t source_count,
                                     void *target, size_t target_count) {
  imgfs_isal *context = (imgfs_isal *)made;
  struct isal_zstream *stream = &context->stream;
  if (source_count > UINT32_MAX || target_count > UINT32_MAX) return 0;
  isal_deflate_stateless_init(stream);
  // All of the 32 KiB that a stream may look back; `init` leaves it as it was.
  stream->hist_bits = 0;
  stream->level = (uint32_t)level;
  stream->level_buf = context->level_buffer;
  stream->level_buf_size = sizeof context->level_buffer;
  stream->end_of_stream = 1;
  stream->flush = NO_FLUSH;
  stream->gzip_flag = is_zlib ? IGZIP_ZLIB : IGZIP_DEFLATE;
  stream->next_in = (uint8_t *)source;
  stream->avail_in = (uint32_t)source_count;
  stream->next_out = (uint8_t *)target;
  stream->avail_out = (uint32_t)target_count;
  return isal_deflate_stateless(stream) == COMP_OK ? stream->total_out : 0;
}

#endif
