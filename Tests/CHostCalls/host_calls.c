#define _GNU_SOURCE
#include "host_calls.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

// What the calls do is done by system calls: nothing here calls what it replaces.

static char folder[4096];
static size_t folder_count;
// Files that are written to the end of. They are opened for each piece: a process that goes to the background closes what it
// does not know.
static const char *record_path;
static const char *list_path;

// Of IMGFS_CALLS_FAIL.
static bool is_failing;
static long failing_number;
static int failing_errno;
static char failing_kinds[32];
static bool fails_for_ever, tears_writes;
// Calls of those kinds until now.
static long call_number;

static bool is_disturbing;
static uint64_t random_state;

// Held while a call is carried out that is recorded: the record has the order of what happened.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int open_log(const char *path) {
  return (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

__attribute__((constructor)) static void start(void) {
  const char *path = getenv("IMGFS_CALLS_FOLDER");
  if (!path || strlen(path) >= sizeof folder) return;
  strcpy(folder, path);
  folder_count = strlen(folder);
  record_path = getenv("IMGFS_CALLS_RECORD");
  list_path = getenv("IMGFS_CALLS_LIST");
  const char *failing = getenv("IMGFS_CALLS_FAIL");
  char how[8] = "";
  if (failing && sscanf(failing, "%ld %d %31s %7s", &failing_number, &failing_errno, failing_kinds, how) == 4) {
    is_failing = true;
    fails_for_ever = strchr(how, 'e');
    tears_writes = strchr(how, 't');
  }
  const char *seed = getenv("IMGFS_CALLS_DISTURB");
  if (seed) {
    is_disturbing = true;
    random_state = strtoull(seed, NULL, 10);
  }
}

// A path below the folder, seen from there; nil: it does not count.
static const char *name_in_folder(const char *path) {
  if (folder_count == 0 || strncmp(path, folder, folder_count) != 0 || path[folder_count] != '/') return NULL;
  return path + folder_count + 1;
}

// The name of an open file, in `buffer`; nil: it does not count, or has no name any more.
static const char *name_of(int descriptor, char buffer[4096]) {
  if (folder_count == 0) return NULL;
  char link[48];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  long count = syscall(SYS_readlink, link, buffer, 4095L);
  if (count <= 0) return NULL;
  buffer[count] = 0;
  static const char deleted[] = " (deleted)";
  if ((size_t)count >= sizeof deleted && strcmp(buffer + count - (sizeof deleted - 1), deleted) == 0) return NULL;
  const char *name = name_in_folder(buffer);
  struct stat status;
  if (!name || syscall(SYS_fstat, descriptor, &status) != 0 || !S_ISREG(status.st_mode)) return NULL;
  return name;
}

static bool is_pipe(int descriptor) {
  struct stat status;
  return syscall(SYS_fstat, descriptor, &status) == 0 && (S_ISFIFO(status.st_mode) || S_ISSOCK(status.st_mode));
}

static int64_t size_of(int descriptor) {
  struct stat status;
  return syscall(SYS_fstat, descriptor, &status) == 0 ? status.st_size : 0;
}

static uint64_t next_random(uint64_t limit) {
  pthread_mutex_lock(&lock);
  random_state += 0x9E3779B97F4A7C15u;
  uint64_t mixed = random_state;
  pthread_mutex_unlock(&lock);
  mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9u;
  mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBu;
  return (mixed ^ (mixed >> 31)) % limit;
}

// Counts a call; true where it is to fail, with `errno` set.
static bool fails(char kind, const char *name, uint64_t offset, uint64_t count) {
  bool result = false;
  pthread_mutex_lock(&lock);
  bool counts = !is_failing || strchr(failing_kinds, kind);
  if (counts) {
    long number = call_number++;
    result = is_failing && (number == failing_number || (fails_for_ever && number > failing_number));
    if (list_path) {
      char line[512];
      int length = snprintf(
          line, sizeof line, "%c %.300s %llu %llu%s\n", kind, name, (unsigned long long)offset,
          (unsigned long long)count, result ? " !" : "");
      int file = open_log(list_path);
      syscall(SYS_write, file, line, (size_t)length);
      syscall(SYS_close, file);
    }
  }
  pthread_mutex_unlock(&lock);
  if (result) errno = failing_errno;
  return result;
}

// Whether the call is interrupted before it does anything.
static bool is_interrupted(void) {
  if (!is_disturbing || next_random(4) != 0) return false;
  errno = EINTR;
  return true;
}

// A part of the bytes, as whole pages where they are whole pages: past the page cache others are not possible.
static size_t shortened(size_t count) {
  if (!is_disturbing || count < 2 || next_random(2) != 0) return count;
  if (count % 4096 == 0) return count == 4096 ? count : 4096 * (1 + next_random(count / 4096 - 1));
  return 1 + next_random(count - 1);
}

static void begin(void) { if (record_path) pthread_mutex_lock(&lock); }
static void end(void) {
  int number = errno;
  if (record_path) pthread_mutex_unlock(&lock);
  errno = number;
}

static void put(int file, const void *bytes, size_t count) {
  for (size_t done = 0; done < count;) {
    long result = syscall(SYS_write, file, (const char *)bytes + done, count - done);
    if (result <= 0) abort();
    done += (size_t)result;
  }
}

// With the lock held.
static void record(uint32_t kind, const char *name, uint64_t offset, uint64_t count, const void *bytes) {
  if (!record_path) return;
  int number = errno;
  struct imgfs_call_record head = {
      .kind = kind, .name_count = (uint32_t)strlen(name), .offset = offset, .count = count,
      .byte_count = bytes ? count : 0};
  int file = open_log(record_path);
  put(file, &head, sizeof head);
  put(file, name, head.name_count);
  if (bytes) put(file, bytes, count);
  syscall(SYS_close, file);
  errno = number;
}

// Bytes that the system moved by itself.
static void record_moved(int descriptor, const char *name, uint64_t offset, uint64_t count) {
  if (!record_path) return;
  char *bytes = malloc(count + 1);
  if (!bytes || syscall(SYS_pread64, descriptor, bytes, count, offset) != (long)count) abort();
  record(IMGFS_CALL_WRITE, name, offset, count, bytes);
  free(bytes);
}

// Moving bytes

ssize_t pread(int descriptor, void *buffer, size_t count, off_t offset) {
  char path[4096];
  const char *name = name_of(descriptor, path);
  if (name) {
    if (fails('r', name, (uint64_t)offset, count) || is_interrupted()) return -1;
    count = shortened(count);
  }
  return syscall(SYS_pread64, descriptor, buffer, count, offset);
}

ssize_t pwrite(int descriptor, const void *buffer, size_t count, off_t offset) {
  char path[4096];
  const char *name = name_of(descriptor, path);
  if (!name) return syscall(SYS_pwrite64, descriptor, buffer, count, offset);
  bool is_torn = false;
  if (fails('w', name, (uint64_t)offset, count)) {
    is_torn = tears_writes && count > 512;
    if (!is_torn) return -1;
    count = count / 1024 * 512;
  } else {
    if (is_interrupted()) return -1;
    count = shortened(count);
  }
  begin();
  ssize_t result = syscall(SYS_pwrite64, descriptor, buffer, count, offset);
  if (result > 0) record(IMGFS_CALL_WRITE, name, (uint64_t)offset, (uint64_t)result, buffer);
  end();
  if (is_torn) {
    errno = failing_errno;
    return -1;
  }
  return result;
}

// One piece of it: a transfer may always be a short one.
ssize_t preadv(int descriptor, const struct iovec *pieces, int count, off_t offset) {
  char path[4096];
  if (!name_of(descriptor, path)) return syscall(SYS_preadv, descriptor, pieces, count, offset, 0);
  for (int i = 0; i < count; i++)
    if (pieces[i].iov_len > 0) return pread(descriptor, pieces[i].iov_base, pieces[i].iov_len, offset);
  return 0;
}

ssize_t pwritev(int descriptor, const struct iovec *pieces, int count, off_t offset) {
  char path[4096];
  if (!name_of(descriptor, path)) return syscall(SYS_pwritev, descriptor, pieces, count, offset, 0);
  for (int i = 0; i < count; i++)
    if (pieces[i].iov_len > 0) return pwrite(descriptor, pieces[i].iov_base, pieces[i].iov_len, offset);
  return 0;
}

// Whether a transfer from or to a pipe fails; it may also become shorter.
static int fails_at_pipe(int descriptor, size_t *count) {
  if (!is_disturbing || !is_pipe(descriptor)) return 0;
  if (is_interrupted()) return 1;
  if (next_random(4) == 0) {
    errno = EAGAIN;
    return 1;
  }
  *count = shortened(*count);
  return 0;
}

// From and to pipes; files are read and written at offsets.
ssize_t read(int descriptor, void *buffer, size_t count) {
  return fails_at_pipe(descriptor, &count) ? -1 : syscall(SYS_read, descriptor, buffer, count);
}

ssize_t write(int descriptor, const void *buffer, size_t count) {
  return fails_at_pipe(descriptor, &count) ? -1 : syscall(SYS_write, descriptor, buffer, count);
}

ssize_t copy_file_range(
    int source, off_t *source_offset, int target, off_t *target_offset, size_t count, unsigned flags) {
  char path[4096];
  const char *name = name_of(target, path);
  if (!name) return syscall(SYS_copy_file_range, source, source_offset, target, target_offset, count, flags);
  uint64_t offset = target_offset ? (uint64_t)*target_offset : 0;
  if (fails('c', name, offset, count) || is_interrupted()) return -1;
  count = shortened(count);
  begin();
  ssize_t result = syscall(SYS_copy_file_range, source, source_offset, target, target_offset, count, flags);
  if (result > 0) record_moved(target, name, offset, (uint64_t)result);
  end();
  return result;
}

int ioctl(int descriptor, unsigned long request, ...) {
  va_list list;
  va_start(list, request);
  void *argument = va_arg(list, void *);
  va_end(list);
  char path[4096];
  const char *name = request == FICLONERANGE ? name_of(descriptor, path) : NULL;
  if (!name) return (int)syscall(SYS_ioctl, descriptor, request, argument);
  const struct file_clone_range *range = argument;
  if (fails('c', name, range->dest_offset, range->src_length) || is_interrupted()) return -1;
  begin();
  int result = (int)syscall(SYS_ioctl, descriptor, request, argument);
  if (result == 0) record_moved(descriptor, name, range->dest_offset, range->src_length);
  end();
  return result;
}

// Room and sizes

int fallocate(int descriptor, int mode, off_t offset, off_t count) {
  char path[4096];
  const char *name = name_of(descriptor, path);
  if (!name) return (int)syscall(SYS_fallocate, descriptor, mode, offset, count);
  if (fails('a', name, (uint64_t)offset, (uint64_t)count) || is_interrupted()) return -1;
  begin();
  int result = (int)syscall(SYS_fallocate, descriptor, mode, offset, count);
  if (result == 0) {
    int64_t size = size_of(descriptor), last = offset + count < size ? offset + count : size;
    if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
      if (last > offset) record(IMGFS_CALL_ZEROS, name, (uint64_t)offset, (uint64_t)(last - offset), NULL);
    } else if (!(mode & FALLOC_FL_KEEP_SIZE)) {
      record(IMGFS_CALL_RESIZE, name, (uint64_t)size, 0, NULL);
    }
  }
  end();
  return result;
}

// Gives the error's number.
int posix_fallocate(int descriptor, off_t offset, off_t count) {
  int number = errno;
  int result = fallocate(descriptor, 0, offset, count) == 0 ? 0 : errno;
  errno = number;
  if (result != EOPNOTSUPP) return result;
  int (*original)(int, off_t, off_t) = dlsym(RTLD_NEXT, "posix_fallocate");
  char path[4096];
  const char *name = name_of(descriptor, path);
  begin();
  result = original(descriptor, offset, count);
  if (name && result == 0) record(IMGFS_CALL_RESIZE, name, (uint64_t)size_of(descriptor), 0, NULL);
  end();
  return result;
}

int ftruncate(int descriptor, off_t size) {
  char path[4096];
  const char *name = name_of(descriptor, path);
  if (!name) return (int)syscall(SYS_ftruncate, descriptor, size);
  if (fails('t', name, (uint64_t)size, 0) || is_interrupted()) return -1;
  begin();
  int result = (int)syscall(SYS_ftruncate, descriptor, size);
  if (result == 0) record(IMGFS_CALL_RESIZE, name, (uint64_t)size, 0, NULL);
  end();
  return result;
}

static int flush(long call, int descriptor) {
  char path[4096];
  const char *name = name_of(descriptor, path);
  if (!name) return (int)syscall(call, descriptor);
  if (fails('s', name, 0, 0) || is_interrupted()) return -1;
  // What it would wait for lies in memory here: the record alone says what is on disk.
  if (!record_path) return 0;
  begin();
  record(IMGFS_CALL_FLUSH, name, 0, 0, NULL);
  end();
  return 0;
}

int fsync(int descriptor) { return flush(SYS_fsync, descriptor); }
int fdatasync(int descriptor) { return flush(SYS_fdatasync, descriptor); }

// Looking

int fstat(int descriptor, struct stat *status) {
  char path[4096];
  const char *name = is_failing || list_path ? name_of(descriptor, path) : NULL;
  if (name && fails('f', name, 0, 0)) return -1;
  return (int)syscall(SYS_fstat, descriptor, status);
}

off_t lseek(int descriptor, off_t offset, int whence) {
  char path[4096];
  const char *name = whence == SEEK_DATA || whence == SEEK_HOLE ? name_of(descriptor, path) : NULL;
  if (name && fails('k', name, (uint64_t)offset, 0)) return -1;
  return syscall(SYS_lseek, descriptor, offset, whence);
}

// Names

static int open_at(int place, const char *path, int flags, mode_t mode) {
  char absolute[4096];
  const char *name = NULL;
  if (folder_count > 0 && !(flags & (O_PATH | O_DIRECTORY))) {
    if (path[0] == '/') {
      name = name_in_folder(path);
    } else if (place == AT_FDCWD && getcwd(absolute, sizeof absolute) != NULL) {
      size_t count = strlen(absolute);
      while (strncmp(path, "./", 2) == 0) path += 2;
      if (count + strlen(path) + 2 <= sizeof absolute) {
        absolute[count] = '/';
        strcpy(absolute + count + 1, path);
        name = name_in_folder(absolute);
      }
    }
  }
  if (!name) return (int)syscall(SYS_openat, place, path, flags, mode);
  bool is_new = (flags & O_CREAT) && syscall(SYS_faccessat, place, path, F_OK) != 0;
  if (fails(is_new ? 'n' : 'o', name, 0, 0) || is_interrupted()) return -1;
  begin();
  int result = (int)syscall(SYS_openat, place, path, flags, mode);
  if (result >= 0 && is_new) record(IMGFS_CALL_CREATE, name, 0, 0, NULL);
  end();
  return result;
}

static mode_t mode_in(int flags, va_list list) {
  return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(list, mode_t) : 0;
}

int open(const char *path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  mode_t mode = mode_in(flags, list);
  va_end(list);
  return open_at(AT_FDCWD, path, flags, mode);
}

int openat(int place, const char *path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  mode_t mode = mode_in(flags, list);
  va_end(list);
  return open_at(place, path, flags, mode);
}

int unlink(const char *path) {
  char absolute[4096];
  const char *name = realpath(path, absolute) ? name_in_folder(absolute) : NULL;
  if (!name) return (int)syscall(SYS_unlink, path);
  if (fails('u', name, 0, 0)) return -1;
  begin();
  int result = (int)syscall(SYS_unlink, path);
  if (result == 0) record(IMGFS_CALL_UNLINK, name, 0, 0, NULL);
  end();
  return result;
}

// The names that programs use which were built for files of any length; here both are the same.
#define SAME(name, other) __typeof__(name) other __attribute__((alias(#name)))
SAME(pread, pread64);
SAME(pwrite, pwrite64);
SAME(preadv, preadv64);
SAME(pwritev, pwritev64);
SAME(fallocate, fallocate64);
SAME(posix_fallocate, posix_fallocate64);
SAME(ftruncate, ftruncate64);
SAME(lseek, lseek64);
SAME(open, open64);
SAME(openat, openat64);
