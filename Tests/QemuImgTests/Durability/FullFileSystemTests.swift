import Foundation
import Glibc
import TestSupport
import Testing

/// Real file systems without room under every verb that writes: ext4, which sets room aside when it is written to disk,
/// and tmpfs.
@Suite(.enabled(if: MountedImage.canLoopMount)) struct FullFileSystemTests {
  /// Those that need room: a smaller disk does not.
  /// The judge sets 128 MiB aside for a Parallels image.
  private static let rows = OperationRow.tested.filter {
    !$0.name.contains("--shrink") && !$0.preparation.contains("-O parallels")
  }

  @Test(arguments: ["ext4", "tmpfs"])
  func aFullFileSystemIsToldAndHarmsNothing(_ kind: String) throws {
    try TemporaryFolder.with { outer in
      try Self.withFileSystem(kind, in: outer) { place in
        var random = SeededRandom.fromEnvironment(or: kind == "ext4" ? 84 : 85)
        var (full, count) = (0, 0)
        for row in Self.rows where Effort.current == .soak || random.oneIn(5) {
          let folder = try TemporaryFolder(at: place).makeInner("w")
          defer { try? FileManager.default.removeItem(atPath: folder.path) }
          let logs = try outer.makeInner("logs")
          let run = try OperationRun(row, in: folder, logs: logs)
          for _ in 0..<Effort.rounds(1) {
            let free = random.below(24) * 16384
            count += 1
            if try fill(run, place, leaving: free) { full += 1 }
          }
        }
        #expect(full * 5 > count, "\(full) of \(count) commands had no room")
        Tally.add("full file systems", full)
      }
    }
  }

  /// True where the command failed.
  private func fill(_ run: OperationRun, _ place: String, leaving free: Int) throws -> Bool {
    try run.reset()
    let filler = place + "/filler"
    try Self.fill(filler, leaving: free)
    let result = try BuiltProduct.qemuImg.run(run.row.command, folder: run.folder.path)
    let story = "\(place): \(free) bytes were free"
    #expect(result.status < 128 && !result.timedOut, "\(run.row.name), \(story): \(result.stderrText)")
    if result.status != 0 {
      #expect(
        result.stderrText.contains("No space left on device"),
        "\(run.row.name), \(story): \(result.stderrText)")
    }
    // Whoever looks at an image that is in use mends it, for which there is to be room.
    try FileManager.default.removeItem(atPath: filler)
    let left = try run.filesNow()
    try run.expectSound(isFinished: result.status == 0, isJudged: false, story)
    try run.put(left)
    try run.expectWorksAgain(isJudged: false, story)
    return result.status != 0
  }

  private static func withFileSystem(
    _ kind: String, in folder: TemporaryFolder, _ body: (String) throws -> Void
  )
    throws
  {
    guard kind == "ext4" else {
      let place = try folder.makeFolder("full")
      try TestProcess.run(["/bin/mount", "-t", "tmpfs", "-o", "size=64m", "none", place]).expecting(0)
      defer { _ = try? TestProcess.run(["/bin/umount", "--lazy", place]) }
      return try body(place)
    }
    let file = folder.file("ext4")
    try TestProcess.run(["/usr/bin/truncate", "-s", "64M", file]).expecting(0)
    try TestProcess.run(["/sbin/mkfs.ext4", "-q", "-m", "0", file]).expecting(0)
    try LoopMount.with(file, "delalloc", in: folder, body)
  }

  /// Sets room aside until no more than `free` bytes are left.
  private static func fill(_ path: String, leaving free: Int) throws {
    let descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw TestFailure("Could not make '\(path)'") }
    defer { close(descriptor) }
    var count = 0
    for piece in [1 << 24, 1 << 20, 1 << 16, 1 << 12] {
      while posix_fallocate(descriptor, off_t(count), off_t(piece)) == 0 { count += piece }
    }
    guard ftruncate(descriptor, off_t(max(0, count - free))) == 0, fsync(descriptor) == 0 else {
      throw TestFailure("Could not leave room beside '\(path)'")
    }
  }
}
