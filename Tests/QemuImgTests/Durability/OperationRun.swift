import FormatEngine
import Foundation
import TestSupport
import Testing

/// The command of a row with the files that it works on, to be run again and again.
struct OperationRun {
  let row: OperationRow
  let folder: TemporaryFolder
  let calls: HostCalls
  /// The files before the command.
  let prepared: [String: [UInt8]]
  /// What the row's images read like before the command and after it; nil where there is none.
  let old: [ImageContents?]
  let new: [ImageContents?]
  /// The command without faults.
  let outcome: HostCalls.Outcome

  /// Prepares the files and runs the command once.
  static func with<T>(_ row: OperationRow, _ body: (OperationRun) throws -> T) throws -> T {
    try TemporaryFolder.with { outer in
      let inner = try outer.makeInner("w")
      return try body(OperationRun(row, in: inner, logs: outer))
    }
  }

  init(_ row: OperationRow, in folder: TemporaryFolder, logs: TemporaryFolder) throws {
    self.row = row
    self.folder = folder
    calls = HostCalls(folder: folder, logs: logs)
    try Self.prepare(row, in: folder)
    prepared = try Self.files(in: folder)
    old = try row.images.map {
      Files.exists(folder.file($0.file)) ? try ImageContents($0, in: folder) : nil
    }
    outcome = try calls.run(.qemuImg, row.command)
    try outcome.result.expecting(0)
    new = try row.images.map {
      Files.exists(folder.file($0.file)) ? try ImageContents($0, in: folder) : nil
    }
  }

  /// Bytes of both disks: runs of data, of which some compress, and of zeros.
  private static func prepare(_ row: OperationRow, in folder: TemporaryFolder) throws {
    for (name, seed) in [("disk.raw", 5 as UInt64), ("other.raw", 6)] {
      var (random, disk) = (SeededRandom(seed: seed), ModelDisk(byteCount: 1 << 20))
      for _ in 0..<10 {
        let range = random.range(in: 1 << 20, most: 100_000, unit: 4096)
        disk.write(
          random.oneIn(2) ? random.bytes(range.count) : random.fill(range.count), at: range.lowerBound)
      }
      try folder.write(disk.bytes, to: name)
    }
    let key = "--object secret,id=key,data=\(OperationRow.passphrase)"
    func run() throws -> ProcessResult {
      try TestProcess.run(
        ["/bin/bash", "-e", "-c", "exec > /dev/null\n" + row.preparation],
        environment: [
          "J": ReferenceTool.qemuImg.path, "Q": try BuiltProduct.qemuImg.path,
          "IO": ReferenceTool.qemuIO.path, "K": key, "LC_ALL": "C",
        ], folder: folder.path)
    }
    var result = try run()
    // The judge makes keys by chance only: its measurement of time may fail.
    for _ in 0..<20 where result.stderrText.contains("accurate CPU usage") { result = try run() }
    try result.expecting(0)
  }

  private static func files(in folder: TemporaryFolder) throws -> [String: [UInt8]] {
    Dictionary(uniqueKeysWithValues: try folder.names().map { ($0, try Files.read(folder.file($0))) })
  }

  /// Puts the files back to where they were before the command.
  func reset() throws { try put(prepared) }

  /// Those that are in the folder now.
  func filesNow() throws -> [String: [UInt8]] { try Self.files(in: folder) }

  /// Leaves files with these names; nil: there is none.
  func put(_ names: [String], _ files: [[UInt8]?]) throws {
    let named = zip(names, files).compactMap { name, bytes in bytes.map { (name, $0) } }
    try put(Dictionary(uniqueKeysWithValues: named))
  }

  /// Leaves these files in the folder, and no others.
  func put(_ files: [String: [UInt8]]) throws {
    for name in try folder.names() where files[name] == nil {
      try FileManager.default.removeItem(atPath: folder.file(name))
    }
    for (name, bytes) in files { try folder.write(bytes, to: name) }
  }

  /// What a recorded command did, as a history of power cuts, with the names of its files.
  func history(of outcome: HostCalls.Outcome) -> (names: [String], cuts: PowerCuts) {
    let names = Set(outcome.changes.map(\.name)).union(prepared.keys).sorted()
    let numbers = Dictionary(uniqueKeysWithValues: names.enumerated().map { ($1, $0) })
    let steps = outcome.changes.map { PowerCuts.Step(file: numbers[$0.name] ?? 0, event: $0.event) }
    return (names, PowerCuts(initial: names.map { prepared[$0] }, steps: steps))
  }

  /// The files are what the record says: nothing was changed by a call that it does not know.
  func expectRecordIsWhole() throws {
    let (names, cuts) = history(of: outcome)
    let found = try filesNow()
    let recorded = cuts.filesAtEnd
    for (name, bytes) in zip(names, recorded) {
      #expect(found[name]?.count == bytes?.count, "\(row.name): '\(name)'")
      if let a = found[name], let b = bytes {
        #expect(ModelDisk.firstDifference(a, b) == nil, "\(row.name): '\(name)'")
      }
    }
    #expect(Set(found.keys).isSubset(of: names), "\(row.name)")
  }

  // MARK: What must hold

  /// The files, as they are in the folder now, keep what the row promises. `isFinished`: the command has said that it
  /// is done.
  func expectSound(isFinished: Bool, isJudged: Bool, _ moment: @autoclosure () -> String) throws {
    for (index, image) in row.images.enumerated() {
      let story = "\(row.name): '\(image.file)', \(moment())"
      let isMade = image.promise == .new || image.promise == .unknown
      if isMade && !isFinished { continue }
      let now: ImageContents
      do { now = try ImageContents(image, in: folder) } catch {
        Issue.record("\(story): \(error)")
        continue
      }
      guard let new = new[index] else { throw TestFailure("\(row.name) leaves no '\(image.file)'") }
      if image.promise == .unknown {
        #expect(now.disk.count == new.disk.count, "\(story)")
      } else if isFinished {
        #expect(now == new, "\(story): \(now.difference(from: new))")
      } else if let old = old[index] {
        expect(now, image.promise, old, new, story)
      }
      if row.isDamaged && !isFinished { continue }
      if isJudged { try expectJudgeReads(now, image, story) }
      let damage = try image.damage(in: folder)
      #expect(damage == nil, "\(story): \(damage ?? "")")
      if isJudged { try expectJudgeFindsNothing(image, story) }
    }
  }

  /// The same command, once more and without faults, does what it is to do, or says that it is done already.
  func expectWorksAgain(isJudged: Bool, _ story: String) throws {
    if !isDone() {
      let result = try BuiltProduct.qemuImg.run(row.command, folder: folder.path)
      let wasDone = row.words.map { result.stderrText.contains($0) } ?? false
      #expect(
        result.status == 0 || wasDone,
        "\(row.name), once more; \(story): \(result.status), \(result.stderrText)")
      guard result.status == 0 else { return }
    }
    try expectSound(isFinished: true, isJudged: isJudged, "once more; \(story)")
  }

  /// Whether what is to change has changed.
  private func isDone() -> Bool {
    let changing = row.images.indices.filter { old[$0] != new[$0] }
    return !changing.isEmpty
      && changing.allSatisfy { index in
        (try? ImageContents(row.images[index], in: folder)).map { $0 == new[index] } ?? false
      }
  }

  private func expect(
    _ now: ImageContents, _ promise: OperationRow.Promise, _ old: ImageContents, _ new: ImageContents,
    _ story: String
  ) {
    switch promise {
    case .kept:
      let place = ModelDisk.firstDifference(now.disk, old.disk)
      #expect(place == nil, "\(story): the disk at \(place ?? 0)")
    case .oldOrNew:
      #expect(
        now == old || now == new,
        "\(story): neither what was (\(now.difference(from: old))) nor what is to be (\(now.difference(from: new)))"
      )
    case .between: #expect(now.isBetween(old, new), "\(story): bytes that are neither old nor new")
    case .new, .unknown: break
    }
  }

  /// The judge's bytes of the disk are ours. It does not read what says that it is to be mended first.
  private func expectJudgeReads(_ now: ImageContents, _ image: OperationRow.Image, _ story: String) throws {
    guard image.passphrase == nil, image.isForJudge, row.isForJudge, try !image.isMarked(in: folder),
      try !image.announcesItsParent(in: folder)
    else { return }
    let result = try ReferenceTool.qemuImg.run(
      ["convert", "-U", "-f", image.format, "-O", "raw", image.file, "judged.bytes"], folder: folder.path)
    defer { try? FileManager.default.removeItem(atPath: folder.file("judged.bytes")) }
    // A log of VHDX is for those who write.
    if image.format == "vhdx", result.stderrText.contains("log") { return }
    guard result.status == 0 else {
      Issue.record("\(story): \(result.stderrText)")
      return
    }
    let bytes = try Files.read(folder.file("judged.bytes"))
    let place = ModelDisk.firstDifference(bytes, now.disk)
    #expect(place == nil, "\(story): the judge reads other bytes at \(place ?? 0)")
  }

  private func expectJudgeFindsNothing(_ image: OperationRow.Image, _ story: String) throws {
    guard image.isForJudge, row.isForJudge else { return }
    if try image.isMarked(in: folder) || image.format == "vhdx" {
      _ = try ReferenceTool.qemuImg.run(
        ["check", "-q", "-r", "all", "-f", image.format, image.file], folder: folder.path)
    }
    let verdict = try ReferenceTool.check(
      image.file, format: image.format, folder: folder.path, passphrase: image.passphrase)
    #expect(verdict.corruptions == 0 && verdict.checkErrors == 0, "\(story): \(verdict.text)")
  }
}

extension OperationRow.Image {
  /// Whether the judge can have an opinion: it checks no raw disks.
  var isForJudge: Bool { format != "raw" && format != "luks" }
}
