import FormatEngine
import Foundation
import Synchronization
import TestSupport
import Testing

/// Threads that write, let go, read and snapshot one mounted disk, beside a model.
@Suite(.enabled(if: MountedImage.isPossible), .serialized) struct ManyThreadsTests {
  /// Minutes and hours by IMGFS_TEST_SECONDS.
  private static let seconds: Double =
    ProcessInfo.processInfo.environment["IMGFS_TEST_SECONDS"].flatMap(Double.init)
    ?? (Effort.current == .soak ? 60 : 4)
  private static let writers = 6
  private static let size = 12 << 20

  private static let kinds =
    (Effort.current == .soak ? WritableImage.all + WritableImage.kinds : WritableImage.chosen)
    .filter(\.beginsWithZeros)

  /// Through the kernel's cache, and past it.
  @Test(arguments: kinds, [0, DiskWords.direct]) func nobodyReadsWhatNobodyWrote(
    _ kind: WritableImage, _ flags: Int32
  ) throws {
    let random = SeededRandom.fromEnvironment(or: 77)
    try TemporaryFolder.with { folder in
      let image = try kind.make(Self.size, in: folder)
      let disk = SharedDisk(byteCount: Self.size, writers: Self.writers)
      let snapshots = try kind.mounted(image, in: folder, timeout: Self.seconds + 120) { mount in
        let crowd = Crowd(mount.path, disk, flags, until: Date(timeIntervalSinceNow: Self.seconds))
        let hasSnapshots = kind.format == "qcow2"
        let complaints = Threads.run(Self.writers + (hasSnapshots ? 4 : 2)) { number in
          var own = SeededRandom(seed: random.seed &* 1000 &+ UInt64(number))
          do {
            switch number {
            case ..<Self.writers: try crowd.write(number, &own)
            case ..<(Self.writers + 2): try crowd.read(&own)
            case Self.writers + 2: try crowd.takeSnapshots(&own)
            default: try crowd.readSnapshots(&own)
            }
            return nil
          } catch {
            crowd.stop()
            return "thread \(number): \(error)"
          }
        }
        #expect(complaints.isEmpty, "\(complaints.joined(separator: "\n")), \(random)")
        Tally.add("calls of threads on one disk", crowd.calls.load(ordering: .relaxed))
        Tally.add("snapshots under threads", crowd.snapshotCount)
        return crowd.kept
      }
      let raw = try kind.judged(image, in: folder)
      try Self.expect(raw, disk)
      for (name, bytes) in snapshots {
        let path = folder.file("snapshot.raw")
        try ReferenceTool.qemuImg.run(
          ["convert", "-O", "raw", "-l", "snapshot.name=\(name)"]
            + ReferenceTool.names(image, kind.format, kind.passphrase)
            + [path]
        ).expecting(0)
        let judged = try Files.read(path)
        #expect(
          unsafe bytes.withUnsafeBytes { unsafe judged.elementsEqual($0) }, "snapshot \(name), \(random)")
      }
    }
  }

  /// What the judge reads is what was written last.
  private static func expect(_ raw: String, _ disk: SharedDisk) throws {
    let file = try DiskWords(raw, O_RDONLY)
    let now = disk.now
    let words = try file.read(0, count: Self.size)
    #expect(now.allSatisfy { $0.begun == $0.done })
    for (block, state) in now.enumerated() {
      let right = SharedDisk.word(block, state.done)
      let isSame = words[block * 512..<block * 512 + 512].allSatisfy { $0 == right }
      try #require(isSame, "block \(block): \(words[block * 512]) instead of \(right)")
    }
  }
}

/// The threads' work; each ends at `until`, or when one has found something.
private final class Crowd: Sendable {
  private let path: String
  private let disk: SharedDisk
  private let flags: Int32
  private let until: Date
  private let isStopped = Atomic(false)
  let calls = Atomic(0)
  private let snapshots = Guarded<(kept: [(String, [UInt64])], count: Int)>(([], 0))

  init(_ path: String, _ disk: SharedDisk, _ flags: Int32, until: Date) {
    (self.path, self.disk, self.flags, self.until) = (path, disk, flags, until)
  }

  var kept: [(String, [UInt64])] { snapshots.withLock { $0.kept } }
  var snapshotCount: Int { snapshots.withLock { $0.count } }
  private var goesOn: Bool { !isStopped.load(ordering: .relaxed) && Date() < until }

  func stop() { isStopped.store(true, ordering: .relaxed) }

  /// Writes and lets go of blocks of its own, reads them again, and has them synced.
  func write(_ writer: Int, _ random: inout SeededRandom) throws {
    let file = try DiskWords(path + "/disk.raw", O_RDWR | flags)
    var number: UInt32 = 0
    while goesOn {
      number += 1
      let range = disk.range(of: writer, &random)
      disk.begin(range, number)
      try file.put(number, range)
      disk.end(range, number)
      let again = disk.range(of: writer, &random)
      let now = disk.now
      let words = try file.read(
        again.lowerBound * SharedDisk.blockSize, count: again.count * SharedDisk.blockSize)
      if let complaint = SharedDisk.complaint(words, first: again.lowerBound, now, now) {
        throw TestFailure("own \(complaint)")
      }
      if random.oneIn(50) { try file.sync() }
      calls.add(2, ordering: .relaxed)
    }
  }

  /// Reads anything.
  func read(_ random: inout SeededRandom) throws {
    let file = try DiskWords(path + "/disk.raw", O_RDONLY | flags)
    while goesOn {
      let first = random.below(disk.blockCount)
      let count = min(disk.blockCount - first, 1 + random.below(64))
      let before = disk.now
      let words = try file.read(first * SharedDisk.blockSize, count: count * SharedDisk.blockSize)
      if let complaint = SharedDisk.complaint(words, first: first, before, disk.now) {
        throw TestFailure(complaint)
      }
      calls.add(1, ordering: .relaxed)
    }
  }

  /// Takes and deletes snapshots. Each has what was written before it was asked for, and keeps it.
  func takeSnapshots(_ random: inout SeededRandom) throws {
    while goesOn {
      let name = snapshots.withLock { state in
        state.count += 1
        return "s\(state.count)"
      }
      let before = disk.now
      try check(unsafe mkdir("\(path)/snapshots/\(name)", 0o755), "mkdir")
      let after = disk.now
      let bytes = try wholeSnapshot(name)
      if let complaint = SharedDisk.complaint(bytes, first: 0, before, after, isStill: true) {
        throw TestFailure("\(name): \(complaint)")
      }
      let old = snapshots.withLock { state in
        state.kept.append((name, bytes))
        return state.kept.count > 3 ? state.kept.remove(at: random.below(4)) : nil
      }
      if let old {
        guard try wholeSnapshot(old.0) == old.1 else { throw TestFailure("\(old.0) has changed") }
        try check(unsafe rmdir("\(path)/snapshots/\(old.0)"), "rmdir")
      }
    }
  }

  private func wholeSnapshot(_ name: String) throws -> [UInt64] {
    try DiskWords("\(path)/snapshots/\(name)/disk.raw", O_RDONLY | flags).read(
      0, count: disk.blockCount * SharedDisk.blockSize)
  }

  /// Looks at snapshots that may be deleted at any moment: they are what they were, or gone.
  func readSnapshots(_ random: inout SeededRandom) throws {
    while goesOn {
      _ = try? FileManager.default.subpathsOfDirectory(atPath: path)
      guard let (name, bytes) = kept.randomElement(using: &random) else { continue }
      let first = random.below(disk.blockCount)
      guard let file = try? DiskWords("\(path)/snapshots/\(name)/disk.raw", O_RDONLY | flags) else {
        continue
      }
      let words = try file.read(first * SharedDisk.blockSize, count: SharedDisk.blockSize)
      guard words.elementsEqual(bytes[first * 512..<first * 512 + 512]) else {
        throw TestFailure("\(name): block \(first)")
      }
      calls.add(1, ordering: .relaxed)
    }
  }
}
