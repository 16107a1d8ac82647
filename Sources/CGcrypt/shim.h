// First, so that the types of the system that gcrypt.h needs are Glibc's and not this module's.
#pragma clang module import SwiftGlibc
#include <gcrypt.h>

// Swift cannot call variadic functions such as gcry_control.

// Makes libgcrypt ready for all threads; 0 where it is too old. Its own locked memory is not used.
static inline int imgfs_gcrypt_start(void) {
  if (!gcry_check_version("1.8.0")) return 0;
  if (gcry_control(GCRYCTL_INITIALIZATION_FINISHED_P)) return 1;
  gcry_control(GCRYCTL_DISABLE_SECMEM, 0);
  gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
  return 1;
}
