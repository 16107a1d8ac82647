import FormatEngine
import Foundation
import TestSupport
import Testing

/// The power fails, and calls fail, under a mount that is written: the library of `HostCalls` lies between imgfs and the system.
@Suite(.enabled(if: MountedImage.isPossible), .serialized) struct DisturbedMountTests {
  private static let kinds =
    (Effort.current == .soak ? WritableImage.all + WritableImage.kinds : WritableImage.all)
    .filter(\.beginsWithZeros)

  /// What a power cut may leave: all that an fsync was waited for, at whatever call it comes.
  @Test(arguments: kinds) func aPowerCutKeepsWhatWasSynced(_ kind: WritableImage) throws {
    try TemporaryFolder.with { folder in
      var random = SeededRandom.fromEnvironment(or: 91)
      try MountedWork(kind, folder, random.next()).cutPower(&random)
    }
  }

  /// A call fails once, or from then on: who writes hears of it, what was synced stays, and once the fault is over the mount goes on.
  @Test(arguments: kinds) func aFailedCallLosesNothingThatWasSynced(_ kind: WritableImage) throws {
    try TemporaryFolder.with { folder in
      var random = SeededRandom.fromEnvironment(or: 92)
      try MountedWork(kind, folder, random.next()).failCalls(&random)
    }
  }
}

extension MountedWork {
  fileprivate func cutPower(_ random: inout SeededRandom) throws {
    let seed = "\(random)"
    let before = try files()
    try run(fault: nil)
    #expect(failures.isEmpty, "\(failures), \(seed)")
    let changes = try calls.changes()
    let names = Set(changes.map(\.name)).union(before.keys).sorted()
    let numbers = Dictionary(uniqueKeysWithValues: names.enumerated().map { ($1, $0) })
    let cuts = PowerCuts(
      initial: names.map { before[$0] },
      steps: changes.map { PowerCuts.Step(file: numbers[$0.name] ?? 0, event: $0.event) })
    let places = (0..<Effort.rounds(3)).map { _ in random.below(changes.count + 1) }.sorted()
    try cuts.forEachState(cuts: places + [changes.count], random: &random, randomCount: 1) { state in
      try put(Dictionary(uniqueKeysWithValues: zip(names, state.files)).compactMapValues { $0 })
      let length = state.cut == 0 ? 0 : changes[state.cut - 1].end
      try expect(syncedAt: length, "cut after \(state.cut) of \(changes.count), \(state.story), \(seed)")
    }
  }

  fileprivate func failCalls(_ random: inout SeededRandom) throws {
    let before = try files()
    try run(fault: nil)
    let kinds: [HostCalls.Kind] = [.read, .write, .copy, .allocate, .truncate, .flush]
    let count = try calls.calls().count { kinds.contains($0.kind) }
    try #require(count > 0)
    for round in 0..<Effort.rounds(4) {
      try put(before)
      let fault = HostCalls.Fault(
        number: random.below(count), errno: random.oneIn(2) ? EIO : ENOSPC, kinds: kinds,
        isForEver: round % 2 == 1, isTorn: random.oneIn(2))
      try run(fault: fault)
      let failed = try calls.calls().filter(\.hasFailed)
      let story = "\(fault): \(failed.first?.description ?? "none was made"), \(random)"
      if try !staysBroken(fault) { #expect(isSyncedAtEnd, "\(story): \(failures)") }
      try expect(syncedAt: .max, story)
      if !failed.isEmpty { Tally.add("faults", 1) }
    }
  }
}

/// An image, and one writer's work on its mounted disk.
private final class MountedWork {
  private static let size = 4 << 20

  private let kind: WritableImage
  private let folder: TemporaryFolder
  private let image: String
  private let seed: UInt64
  let calls: HostCalls

  private var disk = SharedDisk(byteCount: size, writers: 1)
  /// What was done, each time that an fsync had come back, and how long the record of changes was then.
  private var syncs: [(length: Int, blocks: [SharedDisk.Block])] = []
  private(set) var failures: [String] = []
  /// After all that failed there was an fsync that did not.
  private(set) var isSyncedAtEnd = false

  init(_ kind: WritableImage, _ folder: TemporaryFolder, _ seed: UInt64) throws {
    let inner = TemporaryFolder(at: try folder.makeFolder("images"))
    (self.kind, self.folder, self.seed) = (kind, folder, seed)
    image = try kind.make(Self.size, in: inner)
    calls = HostCalls(folder: inner, logs: TemporaryFolder(at: try folder.makeFolder("logs")))
  }

  /// The image's files.
  func files() throws -> [String: [UInt8]] {
    let names = try FileManager.default.contentsOfDirectory(atPath: calls.folder.path)
    return try Dictionary(uniqueKeysWithValues: names.map { ($0, try Files.read(calls.folder.file($0))) })
  }

  func put(_ files: [String: [UInt8]]) throws {
    for name in try self.files().keys where files[name] == nil {
      try FileManager.default.removeItem(atPath: calls.folder.file(name))
    }
    for (name, bytes) in files { try Files.write(bytes, to: calls.folder.file(name)) }
  }

  /// Mounts the image, writes, lets go, syncs, takes snapshots where there are some, unmounts.
  func run(fault: HostCalls.Fault?) throws {
    disk = SharedDisk(byteCount: Self.size, writers: 1)
    (syncs, failures, isSyncedAtEnd) = ([(0, disk.now)], [], false)
    let mountPoint = try folder.makeFolder("mount-\(UUID().uuidString.prefix(8))")
    let pidFile = mountPoint + ".pid"
    let result = try calls.start(
      .imgfs, try kind.words(in: folder) + ["-o", "rw", "--pid-file", pidFile, image, mountPoint],
      fault: fault)
    guard result.status == 0 else {
      failures.append(result.stderrText)
      isSyncedAtEnd = true
      guard fault != nil, !result.stderrText.isEmpty, result.status == 1 else {
        throw TestFailure("\(result.status), '\(result.stderrText)'")
      }
      return
    }
    let process = pid_t(String(decoding: try Files.read(pidFile), as: UTF8.self).dropLast()) ?? 0
    defer { MountedImage.leave(mountPoint, process) }
    try write(to: mountPoint)
    // What cannot be written keeps the mount, where it is imgfs that is asked. A fault may have come here first.
    var end = try BuiltProduct.imgfs.run(["--unmount", mountPoint])
    if end.status != 0, fault != nil {
      end =
        try staysBroken(fault)
        ? TestProcess.run(["/bin/umount", mountPoint]) : BuiltProduct.imgfs.run(["--unmount", mountPoint])
    }
    try end.expecting(0)
    guard MountedImage.waits(until: { !MountedImage.isRunning(process) }) else {
      throw TestFailure("imgfs still runs")
    }
  }

  /// Whether no flush can be trusted any more: after one that failed the kernel has forgotten what it could not write.
  func staysBroken(_ fault: HostCalls.Fault?) throws -> Bool {
    guard let fault else { return false }
    return try fault.isForEver || calls.calls().contains { $0.hasFailed && $0.kind == .flush }
  }

  private func write(to mountPoint: String) throws {
    var random = SeededRandom(seed: seed)
    guard let file = try? DiskWords(mountPoint + "/disk.raw", O_RDWR | DiskWords.direct) else {
      failures.append("open")
      return
    }
    for number in 1...UInt32(40) {
      let range = disk.range(of: 0, &random)
      disk.begin(range, number)
      attempt("write \(number)") {
        try file.put(number, range)
        disk.end(range, number)
      }
      if number % 6 == 0 { sync(file) }
      if number == 20, kind.format == "qcow2" {
        attempt("snapshot") {
          try FileManager.default.createDirectory(
            atPath: mountPoint + "/snapshots/s", withIntermediateDirectories: false)
        }
      }
    }
    // What fails once may fail here for the first time.
    sync(file)
    if !isSyncedAtEnd { sync(file) }
  }

  private func sync(_ file: DiskWords) {
    let now = disk.now
    isSyncedAtEnd = false
    attempt("fsync") {
      try file.sync()
      syncs.append((try calls.recordLength(), now))
      isSyncedAtEnd = true
    }
  }

  private func attempt(_ what: String, _ body: () throws -> Void) {
    do { try body() } catch { failures.append("\(what): \(error)") }
  }

  /// The image as it is in the folder now has no damage, and all that was synced when the record was so long.
  func expect(syncedAt length: Int, _ story: @autoclosure () -> String) throws {
    try ServerEndTests.expectAtMostLeaks(kind, image)
    let raw = try kind.judged(image, in: folder)
    defer { try? FileManager.default.removeItem(atPath: raw) }
    let words = try DiskWords(raw, O_RDONLY).read(0, count: Self.size)
    let synced = syncs.last { $0.length <= length }?.blocks ?? syncs[0].blocks
    if let complaint = SharedDisk.complaint(words, first: 0, synced, disk.now, isStill: true) {
      Issue.record("\(kind.testDescription), \(story()): \(complaint)")
    }
  }
}
