import Glibc

/// What a test process that was killed, or that aborted, left: processes, mounts, loop devices and temporary
/// folders. A second process waits for its end and takes them away; tests that end as they should leave nothing, and
/// nothing is taken away then, so that `scripts/test` sees what they leave all the same.
///
/// That process learns of the end by a pipe, whose other end closes however a process ends. It knows the processes by
/// `IMGFS_TEST_PROCESS` in their environment, which their own children inherit, wherever they went, and everything
/// else by the names of the temporary folders.
enum Aftermath {
  private static let variable = "IMGFS_TEST_PROCESS"

  /// Starts the second process, once. What is started after this is found.
  static let isProvidedFor: Bool = {
    var ends: [CInt] = [0, 0]
    guard unsafe pipe(&ends) == 0 else { return false }
    let (reading, writing) = (ends[0], ends[1])
    // No child may hold the pipe: it would seem that this process still lives.
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    let folders = "\(TemporaryFolder.base)/imgfs-test-\(getpid())-"
    // In a process group of its own, and without the mark: what ends this process does not end that one.
    let started = try? TestProcess(
      ["/bin/sh", "-c", script, "\(getpid())", folders], environment: [variable: ""],
      stdin: "/dev/fd/\(reading)")
    close(reading)
    guard let started else { return false }
    unsafe setenv(variable, "\(getpid())", 1)
    watcher.running = started
    watcher.pipe = writing
    atexit {
      // A line: nothing is to be done.
      _ = unsafe write(Aftermath.watcher.pipe, "\n", 1)
      _ = Aftermath.watcher.running?.wait(timeout: 5)
    }
    return true
  }()

  /// Kept until the end: a process that nobody refers to is killed.
  private final class Watcher: @unchecked Sendable {
    // @unchecked: written once, before anything else uses it.
    var running: TestProcess?
    var pipe: CInt = -1
  }
  private static let watcher = Watcher()

  /// $0: the test process, $1: how the paths of its temporary folders begin. It runs without a line on standard input
  /// only. Killing comes first, again and again: what is alive starts others, and holds mounts.
  private static let script = """
    read -r ended && exit
    for round in 1 2 3 4 5 6 7 8 9; do
      found=$(grep -lzxsF "IMGFS_TEST_PROCESS=$0" /proc/[0-9]*/environ | cut -d/ -f3)
      [ -n "$found" ] || break
      kill -KILL $found
      sleep 0.05
    done
    awk -v start="$1" 'index($5, start) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r place; do
      umount "$place" || umount --lazy "$place" || fusermount3 -uz "$place"
    done
    losetup --list --noheadings --output NAME,BACK-FILE |
      awk -v start="$1" 'index($2, start) == 1 { print $1 }' | xargs -r -n 1 losetup --detach
    rm -rf --one-file-system -- "$1"*
    """
}
