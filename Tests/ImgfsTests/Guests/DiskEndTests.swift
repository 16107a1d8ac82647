import FormatEngine
import Dispatch
import Glibc
import Synchronization
import TestSupport
import Testing

/// What is written past the end of the disk, where the kernel keeps writes back and takes them first.
@Suite(.enabled(if: MountedImage.isPossible), .serialized) struct DiskEndTests {
  private let image = WritableImage(format: "qcow2")
  /// No multiple of the page size.
  private let byteCount = (10 << 20) + 512

  /// Error numbers of calls.
  private final class Failures: Sendable {
    let all = Guarded<Set<CInt>>([])
    func note(_ number: CInt) { all.withLock { _ = $0.insert(number) } }
  }

  private func withDisk(_ body: (String, TemporaryFolder) throws -> Void) throws {
    try TemporaryFolder.with { folder in
      let path = try image.make(byteCount, in: folder)
      try image.mounted(path, in: folder) { mount in try body(mount.file("disk.raw"), folder) }
    }
  }

  /// What a Python program prints that gets the disk for its argument.
  private func printed(_ program: String, _ disk: String, in folder: TemporaryFolder) throws -> String {
    try Shell.run(
      "python3 -c \"$program\" \"$disk\"", ["program": program, "disk": disk], in: folder, timeout: 60)
  }

  private func size(_ path: String) -> Int {
    var status = stat()
    return unsafe stat(path, &status) == 0 ? Int(status.st_size) : -1
  }

  private func expectSize(_ disk: String) {
    let isRight = MountedImage.waits(5) { size(disk) == byteCount }
    #expect(isRight, "\(size(disk))")
  }

  /// A program that writes until there is no more room comes to its end, by write(2) itself.
  @Test func endsAWriterThatDoesNotEnd() throws {
    try withDisk { disk, folder in
      let dd = try TestProcess.run(
        ["/bin/dd", "if=/dev/zero", "of=\(disk)", "bs=64k", "conv=notrunc"], timeout: 60)
      #expect(!dd.timedOut)
      #expect(dd.status == 1)
      #expect(dd.stderrText.contains("error writing '\(disk)': No space left on device"))
      expectSize(disk)
    }
  }

  /// The kernel asks for the size that it believes in when a write past it fails, which is no wish of anybody's.
  @Test func refusedWritesMakeTheDiskNoLarger() throws {
    try withDisk { disk, folder in
      let output = try printed(
        """
        import mmap, os, sys
        end = os.path.getsize(sys.argv[1])
        cached = os.open(sys.argv[1], os.O_RDWR)
        os.pwrite(cached, b"x" * 4096, end + (1 << 20))
        direct = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
        page = mmap.mmap(-1, 4096)
        try: os.pwritev(direct, [page], (end + (2 << 20)) // 4096 * 4096)
        except OSError as error: print(os.strerror(error.errno))
        """, disk, in: folder)
      #expect(output == "No space left on device\n")
      expectSize(disk)
    }
  }

  /// What only the kernel has is something: tar takes files without blocks for one hole.
  @Test func diskThatIsBeingWrittenIsNotEmpty() throws {
    try withDisk { disk, folder in
      let output = try printed(
        """
        import os, sys
        before = os.stat(sys.argv[1]).st_blocks
        file = os.open(sys.argv[1], os.O_RDWR)
        os.pwrite(file, b"x" * 4096, 0)
        print(before, os.stat(sys.argv[1]).st_blocks > 0)
        """, disk, in: folder)
      #expect(output == "0 True\n")
    }
  }

  /// It comes to its end beside others that have the disk open, whoever came first, and they hear nothing of it.
  @Test(arguments: [true, false]) func endsOnlyTheOneThatDoesNotEnd(_ isFirst: Bool) throws {
    try withDisk { disk, folder in
      let output = try printed(
        """
        import os, subprocess, sys, time
        disk, is_first = sys.argv[1], \(isFirst ? "True" : "False")
        def endless():
            return subprocess.Popen(["dd", "if=/dev/zero", "of=" + disk, "bs=64k", "conv=notrunc"],
                                    stderr=subprocess.PIPE)
        if is_first: dd = endless()
        file = os.open(disk, os.O_RDWR)
        if not is_first: dd = endless()
        while dd.poll() is None:
            os.pwrite(file, b"x" * 4096, 4096)
            os.lseek(file, 0, os.SEEK_END)
            time.sleep(0.3)
        print(dd.stderr.read().decode().count("error writing"), dd.returncode)
        time.sleep(1.2)
        os.lseek(file, 0, os.SEEK_END)
        print(os.pwrite(file, b"x" * 4096, 4096))
        """, disk, in: folder)
      #expect(output == "1 1\n4096\n")
      expectSize(disk)
    }
  }

  /// What lies before the end is written, also where the kernel sends it together with what lies behind.
  @Test func writesAllThatFits() throws {
    try withDisk { disk, folder in
      let output = try Shell.run(
        """
        head -c 11M /dev/zero | tr '\\0' x >source
        dd if=source of="$disk" bs=4k conv=notrunc,fsync status=none || echo refused
        for attempt in $(seq 100); do [[ $(stat -c %s "$disk") == \(byteCount) ]] && break; sleep 0.05; done
        cmp <(head -c \(byteCount) source) "$disk" && echo same
        """, ["disk": disk], in: folder)
      #expect(output.contains("No space left on device"))
      #expect(output.hasSuffix("refused\nsame\n"))
      expectSize(disk)
    }
  }

  /// Each way of making sure says that there is no room, and the file has its size again.
  @Test func isRefusedByEveryWayOfMakingSure() throws {
    try withDisk { disk, _ in
      for isSynced in [false, true] {
        let descriptor = unsafe open(disk, O_RDWR | O_CLOEXEC)
        #expect(unsafe pwrite(descriptor, "past the end", 12, off_t(byteCount + 100_000)) == 12)
        if isSynced {
          #expect(fsync(descriptor) == -1)
          #expect(errno == ENOSPC)
        }
        #expect(close(descriptor) == (isSynced ? 0 : -1))
        expectSize(disk)
      }
    }
  }

  /// Past the cache: refused at once, and what fits is written. Zeros that would make the file longer have no room
  /// either, and a hole past the end is nothing.
  @Test func refusesAtOnceWhatTheKernelDoesNotKeep() throws {
    try withDisk { disk, folder in
      let output = try printed(
        """
        import ctypes, errno, mmap, os, sys
        end = \(byteCount)
        libc = ctypes.CDLL(None, use_errno=True)
        file = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
        page = mmap.mmap(-1, 4096)
        page[:] = b"x" * 4096
        for offset in end - 512, end:
            try:
                os.pwrite(file, page, offset)
            except OSError as error:
                print(errno.errorcode[error.errno])
        print(open(sys.argv[1], "rb").read()[-513:] == bytes(1) + b"x" * 512)
        def allocate(mode, offset, count):
            result = libc.fallocate(file, mode, ctypes.c_long(offset), ctypes.c_long(count))
            print(errno.errorcode[ctypes.get_errno()] if result else 0)
        keep_size, punch_hole, zero_range = 1, 2, 16
        allocate(zero_range, end - 4096, 8192)
        allocate(zero_range | keep_size, end - 4096, 8192)
        allocate(punch_hole | keep_size, end - 4096, 1 << 20)
        allocate(0, 0, 4096)
        """, disk, in: folder)
      #expect(output == "ENOSPC\nENOSPC\nTrue\nENOSPC\n0\n0\nENOTSUP\n")
      #expect(size(disk) == byteCount)
    }
  }

  /// Who uses the end of the disk while somebody makes it smaller gets what is there; a writer is told of the end.
  @Test(arguments: ["raw", "qcow2"]) func othersSeeADiskThatGetsSmaller(_ format: String) throws {
    try TemporaryFolder.with { folder in
      let image = WritableImage(format: format)
      let path = try image.make(2 << 20, in: folder)
      // Other formats put each size on disk.
      let rounds = format == "raw" ? 4000 : 150
      try image.mounted(path, options: "rw,shrink", in: folder) { mount in
        let disk = mount.file("disk.raw")
        let isOver = Atomic<Bool>(false)
        let failures = Failures()
        DispatchQueue.concurrentPerform(iterations: 4) { index in
          if index == 0 {
            for round in 0..<rounds {
              unsafe truncate(disk, round.isMultiple(of: 2) ? 1_600_000 : 2 << 20)
            }
            return isOver.store(true, ordering: .releasing)
          }
          // O_DIRECT and SEEK_DATA, which Glibc's module leaves out.
          let (directly, seekData): (CInt, CInt) = (0o40000, 3)
          let file = unsafe open(disk, O_RDWR | directly | O_CLOEXEC)
          let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 4096)
          defer {
            close(file)
            unsafe buffer.deallocate()
          }
          let offset: off_t = 2_000_000 / 4096 * 4096
          while !isOver.load(ordering: .acquiring) {
            if unsafe pread(file, buffer.baseAddress, 4096, offset) < 0 { failures.note(errno) }
            if index == 1, unsafe pwrite(file, buffer.baseAddress, 4096, offset) < 0, errno != ENOSPC {
              failures.note(errno)
            }
            if index == 2, lseek(file, offset, seekData) < 0, errno != ENXIO { failures.note(errno) }
          }
        }
        #expect(failures.all.withLock { $0 }.isEmpty)
      }
    }
  }
}
