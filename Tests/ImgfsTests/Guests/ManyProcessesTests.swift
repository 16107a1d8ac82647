import FormatEngine
import Foundation

import TestSupport
import Testing

/// Eight processes and mounts want to change one image: whoever comes while it is in use is refused, nothing that was said to be
/// done is lost, and nothing else is there.
@Suite(.enabled(if: MountedImage.isPossible), .serialized) struct ManyProcessesTests {
  private static let workers = 8

  /// What was said to be done.
  private struct Done {
    var snapshots: Set<String> = []
    var bitmaps: Set<String> = []
    /// The last number that a worker wrote into its own block.
    var numbers: [Int: Int] = [:]
    var refusals = 0
  }

  @Test func nobodyWritesOverAnybody() throws {
    try TemporaryFolder.with { folder in
      let image = folder.file("image")
      try ReferenceTool.create(image, format: "qcow2", size: 4 << 20, options: ["cluster_size=4k"])
      let done = Guarded(Done())
      let rounds = Effort.rounds(12)
      let failures = Threads.run(Self.workers) { worker in
        for round in 1...rounds {
          do { try Self.work(worker, round, on: image, in: folder, done) } catch { return "\(error)" }
        }
        return nil
      }
      #expect(failures.isEmpty, "\(failures)")
      let outcome = done.withLock { $0 }
      try expect(outcome, in: image, folder)
      // There was a throng, and work was done in it.
      #expect(outcome.refusals > 0)
      #expect(outcome.snapshots.count + outcome.bitmaps.count + outcome.numbers.count > 0)
      Tally.add("processes on one image", Self.workers * rounds)
    }
  }

  private static func work(
    _ worker: Int, _ round: Int, on image: String, in folder: TemporaryFolder, _ done: Guarded<Done>
  ) throws {
    let name = "w\(worker)-\(round)"
    switch (worker + round) % 3 {
    case 0:
      if try changes(["snapshot", "-c", name, image], done) {
        done.withLock { _ = $0.snapshots.insert(name) }
      }
    case 1:
      if try changes(["bitmap", "--add", image, name], done) {
        done.withLock { _ = $0.bitmaps.insert(name) }
      }
    default: try write(round, by: worker, to: image, folder, done)
    }
  }

  /// False where another process had the image; every other failure is one.
  private static func changes(_ words: [String], _ done: Guarded<Done>) throws -> Bool {
    try isDone(try BuiltProduct.qemuImg.run(words), done)
  }

  private static func isDone(_ result: ProcessResult, _ done: Guarded<Done>) throws -> Bool {
    if result.status == 0 { return true }
    guard result.stderrText.contains("Failed to get") && result.stderrText.contains("lock") else {
      throw TestFailure(result.stderrText)
    }
    done.withLock { $0.refusals += 1 }
    return false
  }

  /// Mounts the image and writes a number into the worker's own block; what `--unmount` answers is on disk.
  private static func write(
    _ number: Int, by worker: Int, to image: String, _ folder: TemporaryFolder, _ done: Guarded<Done>
  ) throws {
    let mountPoint = try folder.makeFolder("mount-\(worker)-\(number)")
    guard try isDone(try BuiltProduct.imgfs.run(["-o", "rw", image, mountPoint]), done) else { return }
    let disk = try FileHandle(forUpdating: URL(fileURLWithPath: mountPoint + "/disk.raw"))
    try disk.seek(toOffset: UInt64(worker * 65536))
    try disk.write(contentsOf: Data(repeating: UInt8(number % 256), count: 65536))
    try disk.close()
    let isUnmounted = try MountedImage.waits {
      try BuiltProduct.imgfs.run(["--unmount", mountPoint]).status == 0
    }
    guard isUnmounted else { throw TestFailure("'\(mountPoint)' stays mounted") }
    done.withLock { $0.numbers[worker] = number }
  }

  private func expect(_ outcome: Done, in image: String, _ folder: TemporaryFolder) throws {
    let verdict = try ReferenceTool.check(image)
    #expect(verdict.corruptions == 0 && verdict.leaks == 0 && verdict.checkErrors == 0, "\(verdict.text)")
    let information = try ReferenceTool.qemuImg("info", "--output=json", image).stdout
    let info = try #require(try JSONSerialization.jsonObject(with: Data(information)) as? [String: Any])
    let snapshots = (info["snapshots"] as? [[String: Any]] ?? []).compactMap { $0["name"] as? String }
    #expect(snapshots.sorted() == outcome.snapshots.sorted())
    let specific = (info["format-specific"] as? [String: Any])?["data"] as? [String: Any]
    let bitmaps = (specific?["bitmaps"] as? [[String: Any]] ?? []).compactMap { $0["name"] as? String }
    #expect(bitmaps.sorted() == outcome.bitmaps.sorted())
    let content = try ReferenceTool.content(of: image, format: "qcow2", in: folder)
    for worker in 0..<Self.workers {
      let block = content[worker * 65536..<(worker + 1) * 65536]
      let number = UInt8((outcome.numbers[worker] ?? 0) % 256)
      #expect(block.allSatisfy { $0 == number }, "worker \(worker)")
    }
  }
}
