import FormatEngine
import CLinux
import Foundation
import TestSupport
import Testing

@testable import imgfs

/// What the process of a mount can no longer do, once the tree is there.
@Suite struct ConfinementTests {
  /// Runs `body` on a thread of its own, which stays confined to its end.
  private func confined(_ degree: Confinement.Degree, _ body: @escaping @Sendable () -> [String: CInt]) throws
    -> [String: CInt]
  {
    try Self.onOneThread {
      try Confinement(degree: degree, holdsForAllThreads: false).enter()
      return body()
    }
  }

  private static func onOneThread<T: Sendable>(_ body: @escaping @Sendable () throws -> T) throws -> T {
    let result = Guarded<Result<T, any Error>?>(nil)
    let isDone = DispatchSemaphore(value: 0)
    Thread {
      let outcome = Result { try body() }
      result.withLock { $0 = outcome }
      isDone.signal()
    }.start()
    isDone.wait()
    return try #require(result.withLock { $0 }).get()
  }

  /// unshare(2), which Glibc's module leaves out.
  private static func unshare(_ flags: CInt) -> CInt {
    typealias Call = @convention(c) (CInt) -> CInt
    guard let symbol = unsafe dlsym(nil, "unshare") else { return -1 }
    return unsafe unsafeBitCast(symbol, to: Call.self)(flags)
  }

  /// The errno of calls that nobody who serves files makes; 0 where one was done.
  private static let forbidden: @Sendable () -> [String: CInt] = {
    func number(_ result: CInt) -> CInt { result < 0 ? errno : 0 }
    let words = CStrings(["true"])
    return unsafe [
      "a namespace of mounts": number(unshare(0x2_0000)),
      "a namespace of users": number(unshare(0x1000_0000)),
      "another's namespace": number(setns(STDIN_FILENO, 0)),
      "a mount": number(mount("none", "/nowhere", "tmpfs", 0, nil)),
      "a program": number(execv("/bin/true", words.pointers)),
      "a network": number(socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0)),
    ]
  }

  @Test(arguments: [Confinement.Degree.usual, .strict])
  func whatNoFileSystemNeedsIsRefused(_ degree: Confinement.Degree) throws {
    for (what, number) in try confined(degree, Self.forbidden) {
      #expect(number == EPERM, "\(what): \(number)")
    }
  }

  @Test(arguments: [Confinement.Degree.usual, .strict])
  func threadsAndSocketsOfThisHostAreThereStill(_ degree: Confinement.Degree) throws {
    let results = try confined(degree) {
      let descriptor = socket(AF_UNIX, CInt(SOCK_DGRAM.rawValue), 0)
      defer { close(descriptor) }
      let threaded = (try? Self.onOneThread { CInt(0) }) ?? -1
      return ["thread": threaded, "socket": descriptor < 0 ? errno : 0]
    }
    #expect(results == ["thread": 0, "socket": 0])
  }

  @Test(.enabled(if: MountedImage.isPossible), arguments: [[], ["-s"], ["--seccomp", "-o", "rw"]])
  func allThreadsOfAMountAreConfined(_ options: [String]) throws {
    try TemporaryFolder.with { folder in
      let image = folder.file("disk.qcow2")
      _ = try ReferenceTool.qemuImg.run(["create", "-q", "-f", "qcow2", image, "1M"], folder: folder.path)
      try MountedImage.with(image, options: options, in: folder) { mount in
        #expect(try Files.read(mount.file("disk.raw")).count == 1 << 20)
        let threads = try FileManager.default.contentsOfDirectory(atPath: "/proc/\(mount.process)/task")
        #expect(!threads.isEmpty)
        for thread in threads {
          let status = String(
            decoding: try Files.read("/proc/\(mount.process)/task/\(thread)/status"), as: UTF8.self)
          #expect(status.contains("NoNewPrivs:\t1"))
          #expect(status.contains("Seccomp:\t2"))
        }
      }
    }
  }

  /// With the strict filter everything works that a mount can do.
  @Test(.enabled(if: MountedImage.isPossible)) func strictMountDoesAllThatMountsDo() throws {
    try TemporaryFolder.with { folder in
      _ = try Shell.run(
        """
        exec 2>&1
        set -x
        qemu-img create -q -f qcow2 base.qcow2 8M
        qemu-io -f qcow2 -c 'write -P 1 0 1M' base.qcow2
        qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 -o cluster_size=4k top.qcow2
        qemu-img snapshot -c first top.qcow2
        mkdir m shelf
        finish() { mountpoint -q m && umount --lazy m; true; }
        trap finish EXIT
        "$imgfs" --seccomp -o rw top.qcow2 m
        ls -lR m
        printf 'label: dos\\n,1M,83\\n' | sfdisk -q m/disk.raw
        ls -l m/partitions
        dd if=/dev/urandom of=m/disk.raw bs=64k count=20 seek=40 conv=notrunc,fsync status=none
        dd if=/dev/urandom of=m/disk.raw bs=64k count=4 seek=70 oflag=direct conv=notrunc status=none
        fallocate --punch-hole --offset 1M --length 256K m/disk.raw
        fallocate --zero-range --keep-size --offset 2M --length 64K m/disk.raw
        truncate --size 9M m/disk.raw
        mkdir m/snapshots/second
        cmp m/disk.raw m/snapshots/second/disk.raw
        cp --sparse=always m/disk.raw copy.raw
        rmdir m/snapshots/first
        "$imgfs" --unmount m
        qemu-img check -q top.qcow2
        qemu-img compare -q -f raw -F qcow2 copy.raw top.qcow2
        cp copy.raw shelf/one.raw
        TMPDIR=$PWD "$imgfs" --seccomp --overlay tmp top.qcow2 m
        printf folded | dd of=m/disk.raw conv=notrunc status=none
        "$imgfs" --commit m
        "$imgfs" --unmount m
        "$imgfs" -o seccomp,idle=1 --pid-file pid shelf m
        cmp m/one.raw/disk.raw copy.raw
        sleep 2
        cmp m/one.raw/disk.raw copy.raw
        kill "$(cat pid)"
        for attempt in $(seq 100); do mountpoint -q m || break; sleep 0.05; done
        if mountpoint -q m; then exit 1; fi
        """, ["imgfs": try BuiltProduct.imgfs.path], in: folder)
    }
  }

  /// Who may not unmount by himself has it done by the process that waits for that; it does not outlive the mount.
  @Test(.enabled(if: MountedImage.ordinaryUsersMay && getuid() == 0))
  func ordinaryUsersMountGoesWithItsProcess() throws {
    try TemporaryFolder.with { folder in
      _ = try Shell.run(
        """
        exec 2>&1
        chmod 755 .; mkdir own; chown 65534:65534 own; cp "$imgfs" own/imgfs; chmod 755 own/imgfs
        cd own
        user='setpriv --reuid=65534 --regid=65534 --clear-groups'
        trap 'umount --lazy m 2>/dev/null || true' EXIT
        $user truncate --size 1M disk.raw
        $user mkdir m
        count() { pgrep --count --full "^./imgfs .*disk.raw m" || true; }
        for signal in TERM KILL; do
          $user ./imgfs -F raw --pid-file pid disk.raw m
          test "$($user stat -c %s m/disk.raw)" = 1048576
          test "$(count)" = 2
          kill -s $signal "$(cat pid)"
          for attempt in $(seq 100); do test "$(count)" = 0 && break; sleep 0.05; done
          test "$(count)" = 0
          if test $signal = KILL; then $user fusermount3 -u m; fi
          if mountpoint -q m; then exit 1; fi
        done
        """, ["imgfs": try BuiltProduct.imgfs.path], in: folder)
    }
  }
}
