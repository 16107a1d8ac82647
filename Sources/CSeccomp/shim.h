#include <errno.h>
#include <seccomp.h>

// Macros with arguments, which Swift does not see.
static inline uint32_t imgfs_seccomp_refusal(int number) { return SCMP_ACT_ERRNO(number); }
enum { IMGFS_SECCOMP_ALLOW = SCMP_ACT_ALLOW };
