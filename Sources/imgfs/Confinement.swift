internal import CFuse
internal import CSeccomp
import FormatEngine
import Glibc

/// What the process gives up once the tree is mounted: whoever takes it over by way of an image gets little by it.
///
/// It never gains privileges again (PR_SET_NO_NEW_PRIVS), starts no program, makes and enters no namespace, mounts nothing, looks into no
/// other process and speaks to no network. Where the kernel has no filters for system calls the first stays.
struct Confinement {
  /// How many system calls remain.
  enum Degree: Sendable {
    /// All but those that no file system needs.
    case usual
    /// Those that serving the tree takes.
    case strict
  }

  var degree = Degree.usual
  /// False: of the thread that asks only. Threads that it starts later are confined as well.
  var holdsForAllThreads = true

  /// Throws where a strict filter cannot be had; the usual one is done without.
  func enter() throws(EngineError) {
    guard imgfs_gain_no_privileges() == 0 else {
      throw .systemCall("Could not give up gaining privileges", errno: errno)
    }
    do throws(EngineError) { try load() } catch {
      if degree == .strict { throw error }
    }
  }

  private func load() throws(EngineError) {
    let filter = degree == .strict ? unsafe seccomp_init(Self.refusal) : unsafe seccomp_init(Self.allowed)
    guard let filter = unsafe filter else { throw Self.failure(ENOMEM) }
    defer { unsafe seccomp_release(filter) }
    try Self.require(unsafe seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, holdsForAllThreads ? 1 : 0))
    switch degree {
    case .usual:
      for name in Self.refusedCalls { unsafe try Self.add(name, Self.refusal, to: filter) }
    case .strict:
      for name in Self.servingCalls { unsafe try Self.add(name, Self.allowed, to: filter) }
    }
    unsafe try Self.addPartialRules(degree, to: filter)
    try Self.require(unsafe seccomp_load(filter))
  }

  // MARK: Rules

  private static let allowed = UInt32(truncatingIfNeeded: IMGFS_SECCOMP_ALLOW)
  private static let refusal = imgfs_seccomp_refusal(EPERM)

  /// Calls of which some uses are fine: threads are started, namespaces are not; the system's log is a socket of this host.
  private static func addPartialRules(_ degree: Degree, to filter: scmp_filter_ctx) throws(EngineError) {
    // The C library takes clone instead, whose flags a filter can see.
    unsafe try add("clone3", imgfs_seccomp_refusal(ENOSYS), to: filter)
    let local = UInt64(AF_UNIX)
    switch degree {
    case .usual:
      for flag in namespaceFlags {
        unsafe try add(
          "clone", refusal, to: filter,
          scmp_arg_cmp(arg: 0, op: SCMP_CMP_MASKED_EQ, datum_a: flag, datum_b: flag))
      }
      unsafe try add(
        "socket", refusal, to: filter, scmp_arg_cmp(arg: 0, op: SCMP_CMP_NE, datum_a: local, datum_b: 0))
    case .strict:
      let flags = namespaceFlags.reduce(0, |)
      unsafe try add(
        "clone", allowed, to: filter, scmp_arg_cmp(arg: 0, op: SCMP_CMP_MASKED_EQ, datum_a: flags, datum_b: 0)
      )
      unsafe try add(
        "socket", allowed, to: filter, scmp_arg_cmp(arg: 0, op: SCMP_CMP_EQ, datum_a: local, datum_b: 0))
    }
  }

  /// A call that this machine does not have needs no rule.
  private static func add(
    _ name: String, _ action: UInt32, to filter: scmp_filter_ctx, _ condition: scmp_arg_cmp? = nil
  ) throws(EngineError) {
    let number = unsafe seccomp_syscall_resolve_name(name)
    guard number >= 0 else { return }
    let conditions = condition.map { [$0] } ?? []
    try require(unsafe seccomp_rule_add_array(filter, action, number, UInt32(conditions.count), conditions))
  }

  private static func require(_ result: CInt) throws(EngineError) {
    guard result == 0 else { throw failure(-result) }
  }

  private static func failure(_ number: CInt) -> EngineError {
    .systemCall("Could not filter system calls", errno: number)
  }

  // MARK: Calls

  /// CLONE_NEWNS, -CGROUP, -UTS, -IPC, -USER, -PID, -NET (clone(2)).
  private static let namespaceFlags: [UInt64] = [
    0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000,
  ]

  private static let refusedCalls = words(
    """
    unshare setns mount move_mount open_tree fsopen fsconfig fsmount fspick mount_setattr pivot_root chroot
    execve execveat ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd kcmp
    init_module finit_module delete_module kexec_load kexec_file_load bpf perf_event_open userfaultfd
    keyctl add_key request_key reboot swapon swapoff acct quotactl quotactl_fd settimeofday clock_settime adjtimex
    clock_adjtime sethostname setdomainname iopl ioperm lookup_dcookie nfsservctl vhangup mknod mknodat
    io_uring_setup io_uring_enter io_uring_register open_by_handle_at
    """)

  /// What the kernel's requests, images and their locks, threads, the system's log and the end of the mount take.
  private static let servingCalls = words(
    """
    read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek _llseek
    open openat openat2 close close_range creat dup dup2 dup3 fcntl fcntl64 flock ioctl pipe pipe2 splice tee vmsplice sendfile
    fstat stat lstat newfstatat fstatat64 fstat64 stat64 statx statfs fstatfs access faccessat faccessat2 readlink readlinkat
    getdents getdents64 getcwd chdir fchdir mkdir mkdirat unlink unlinkat rename renameat renameat2 link linkat symlinkat
    truncate ftruncate fallocate fadvise64 copy_file_range fsync fdatasync sync_file_range syncfs sync msync
    fchmod fchmodat fchown fchownat utimensat getxattr fgetxattr lgetxattr setxattr fsetxattr listxattr flistxattr umask
    mmap mmap2 munmap mremap mprotect madvise mincore brk mlock munlock membarrier
    futex futex_time64 set_robust_list get_robust_list rseq set_tid_address sched_yield sched_getaffinity sched_setaffinity
    getpid getppid gettid getuid geteuid getgid getegid getgroups getpgid getsid setsid uname sysinfo getrandom getcpu
    getrlimit setrlimit prlimit64 getrusage times prctl arch_prctl capget getpriority
    rt_sigaction rt_sigprocmask rt_sigpending rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigqueueinfo sigaltstack
    tgkill tkill restart_syscall
    clock_gettime clock_getres gettimeofday time nanosleep clock_nanosleep timerfd_create timerfd_settime timerfd_gettime
    poll ppoll select pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd2 signalfd4 inotify_init1
    inotify_add_watch inotify_rm_watch
    connect sendto sendmsg recvfrom recvmsg getsockopt setsockopt getsockname getpeername shutdown
    wait4 waitid umount2 exit exit_group
    """)

  private static func words(_ text: String) -> [String] {
    text.split(whereSeparator: \.isWhitespace).map(String.init)
  }
}
