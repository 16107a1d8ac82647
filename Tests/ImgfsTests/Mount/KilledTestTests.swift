import Foundation
import TestSupport
import Testing

/// A test process that is killed in the middle of a test.
@Suite(.enabled(if: MountedImage.canLoopMount), .serialized) struct KilledTestTests {
  /// In the process that is killed: the file that says what it has.
  private static let variable = "IMGFS_TEST_VICTIM"

  @Test func leavesNoProcessNoMountAndNoLoopDevice() throws {
    if let report = ProcessInfo.processInfo.environment[Self.variable] { return try hold(report) }
    try TemporaryFolder.with { folder in
      let report = folder.file("report")
      let victim = try TestProcess(
        [
          "/proc/\(getpid())/exe", "--testing-library", "swift-testing", "--no-parallel", "--filter",
          "KilledTestTests",
        ],
        environment: [Self.variable: report, "TMPDIR": folder.path])
      #expect(MountedImage.waits(60) { Files.exists(report) || !victim.isRunning })
      let held = String(decoding: try Files.read(report), as: UTF8.self).split(separator: "\n").map(
        String.init)
      // It is all there: otherwise its absence would say nothing.
      try #require(held.count == 5)
      for process in held[..<3] { #expect(pid_t(process).map(MountedImage.isRunning) == true, "\(process)") }
      #expect(MountedImage.isMounted(held[3]))
      #expect(try isAttached(held[4]))
      victim.signal(SIGKILL)
      _ = victim.wait(timeout: 10)
      for process in held[..<3] {
        #expect(MountedImage.waits { pid_t(process).map(MountedImage.isRunning) == false }, "\(process)")
      }
      #expect(MountedImage.waits { !MountedImage.isMounted(held[3]) })
      #expect(try MountedImage.waits { try !isAttached(held[4]) })
      #expect(MountedImage.waits { (try? folder.names()) == ["report"] })
    }
  }

  /// Writes down a lock's holder, a shell's child, an imgfs, its mount point and a loop device, and waits to be killed.
  private func hold(_ report: String) throws {
    try TemporaryFolder.with { folder in
      let image = try folder.write([UInt8](repeating: 1, count: 1 << 20), to: "disk.raw")
      let shell = try TestProcess(["/bin/sh", "-c", "sleep 600 & echo $!; wait"])
      let device = try TestProcess.run(["/usr/sbin/losetup", "--find", "--show", image]).expecting()
        .stdoutText
      try Holder.with(Holder.file("disk.raw"), in: folder.path) {
        let holder = String(decoding: try Files.read(folder.file("holder.pid")), as: UTF8.self)
        try MountedImage.with(image, in: folder) { mount in
          #expect(MountedImage.waits { !shell.stdoutSoFar.isEmpty })
          let sleeper = String(decoding: shell.stdoutSoFar, as: UTF8.self)
          let lines = holder + sleeper + "\(mount.process)\n\(mount.path)\n" + device
          try Files.write(Array(lines.utf8), to: report + ".new")
          unsafe rename(report + ".new", report)
          sleep(60)
        }
      }
    }
  }

  private func isAttached(_ device: String) throws -> Bool {
    try TestProcess.run(["/usr/sbin/losetup", device]).status == 0
  }
}
