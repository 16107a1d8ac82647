import FormatEngine
import Foundation
import TestSupport

/// The life of an image: everything that can be done with one, step after step.
///
/// There are two of it. The judge does every step with its own. With the other, each step is ours or the judge's
/// as chance has it, so that each goes on with what the other made. Both must hold what the model holds.
struct ImageLife {
  let row: LifeRow
  let folder: TemporaryFolder
  var random: SeededRandom
  var disk: ModelDisk
  var base: ModelDisk?
  var snapshots: [(name: String, disk: ModelDisk)] = []
  var bitmaps: Set<String> = []
  /// What was done, for messages.
  var story: [String] = []

  static let mixed = "mixed"
  static let judged = "judged"
  private static let folders = [mixed, judged]

  /// Makes both images.
  init(_ row: LifeRow, in folder: TemporaryFolder, random: SeededRandom) throws {
    self.row = row
    self.folder = folder
    self.random = random
    disk = ModelDisk(byteCount: row.size)
    for place in Self.folders { _ = try folder.makeFolder(place) }
    if let size = row.baseSize {
      let bytes =
        self.random.bytes(size / 3) + [UInt8](repeating: 0, count: size - size / 3 * 2)
        + self.random.fill(size / 3)
      base = ModelDisk(bytes)
      disk = ModelDisk(Array((bytes + [UInt8](repeating: 0, count: row.size)).prefix(row.size)))
      for place in Self.folders {
        try folder.write(bytes, to: "\(place)/base.raw")
        try judge(["convert", "-f", "raw", "-O", "qcow2", "base.raw", "base.qcow2"], in: place)
      }
    }
    let backing = row.baseSize == nil ? [] : ["-b", "base.qcow2", "-F", "qcow2"]
    try run(
      ["create", "-q", "-f", "qcow2"] + (row.options.isEmpty ? [] : ["-o", row.options]) + backing
        + ["image", "\(row.size)"])
  }

  // MARK: Doing

  /// Runs a command on both images: it must end in the same way. True where it was done, false where refused.
  @discardableResult
  mutating func run(_ arguments: [String]) throws -> Bool {
    let isOurs = random.oneIn(2)
    story.append("\(isOurs ? "ours:  " : "judge: ")\(arguments.joined(separator: " "))")
    let expected = try ReferenceTool.qemuImg.run(arguments, folder: folder.file(Self.judged))
    let mixed = folder.file(Self.mixed)
    let result =
      try isOurs
      ? BuiltProduct.qemuImg.run(arguments, folder: mixed)
      : ReferenceTool.qemuImg.run(arguments, folder: mixed)
    guard result.status == expected.status else {
      throw TestFailure(
        "\(result.command): exit status \(result.status), the judge's \(expected.status)\n"
          + "\(result.stdoutText)\(result.stderrText)\njudge: \(expected.stdoutText)\(expected.stderrText)")
    }
    return result.status == 0
  }

  private func judge(_ arguments: [String], in place: String) throws {
    try ReferenceTool.qemuImg.run(arguments, folder: folder.file(place)).expecting(0)
  }

  /// Changes guest bytes of both images.
  mutating func change(_ changes: [GuestChange]) throws {
    let isOurs = random.oneIn(2)
    let commands = changes.map(\.command)
    story.append("\(isOurs ? "ours:  " : "judge: ")\(commands.joined(separator: "; "))")
    try ReferenceTool.io(commands, on: "image", format: "qcow2", folder: folder.file(Self.judged))
    if isOurs {
      let chain = try ImageOpener.open(image, OpenOptions(format: "qcow2", access: .readWrite))
      for change in changes { try change.apply(to: chain) }
      try chain.close()
    } else {
      try ReferenceTool.io(commands, on: "image", format: "qcow2", folder: folder.file(Self.mixed))
    }
    for change in changes { change.apply(to: &disk) }
  }

  /// Whether nothing is stored there in either image: only there the judge stores packed clusters.
  func isEmpty(_ range: Range<Int>) throws -> Bool {
    for place in Self.folders {
      let layer = try ImageOpener.open(folder.file("\(place)/image")).top
      let found = try layer.extent(at: UInt64(range.lowerBound), limit: UInt64(range.count))
      guard found.source == .below, found.hostOffset == nil, found.length == UInt64(range.count) else {
        return false
      }
    }
    return true
  }

  var image: String { folder.file("\(Self.mixed)/image") }

  // MARK: Looking

  /// Both images are sound and hold what the model holds.
  func verify() throws {
    let place = folder.file(Self.mixed)
    let verdict = try ReferenceTool.check("image", folder: place)
    guard verdict.corruptions == 0, verdict.leaks == 0, verdict.checkErrors == 0 else {
      throw TestFailure(verdict.text)
    }
    let ours = try BuiltProduct.qemuImg.run(["check", "-q", "image"], folder: place)
    guard ours.status == 0 else { throw TestFailure("our check: \(ours.stdoutText)\(ours.stderrText)") }
    try expect(try ImageOpener.open(image).readAll(), disk, "the disk as we read it")
    try ReferenceTool.qemuImg.run(
      ["compare", "-s", "-f", "qcow2", "-F", "qcow2", "image", folder.file("\(Self.judged)/image")],
      folder: place
    )
    .requireIdentical()
    // In its folder, from where the judge takes the name of a data file.
    try ReferenceTool.qemuImg.run(["convert", "-f", "qcow2", "-O", "raw", "image", "content"], folder: place)
      .expecting(0)
    try expect(try Files.read(folder.file("\(Self.mixed)/content")), disk, "the disk as the judge reads it")
    if let base {
      try expect(try ImageOpener.open(folder.file("\(Self.mixed)/base.qcow2")).readAll(), base, "the base")
    }
  }

  /// Every snapshot still is what the disk was, for us and for the judge.
  func verifySnapshots() throws {
    for snapshot in snapshots {
      let arguments = ["convert", "-O", "raw", "-l", "snapshot.name=\(snapshot.name)", "image", "content"]
      let content = folder.file("\(Self.mixed)/content")
      try BuiltProduct.qemuImg.run(arguments, folder: folder.file(Self.mixed)).expecting(0)
      try expect(try Files.read(content), snapshot.disk, "\(snapshot.name) as we read it")
      try ReferenceTool.qemuImg.run(arguments, folder: folder.file(Self.mixed)).expecting(0)
      // The judge reads it at the size that the disk has now.
      let count = min(disk.byteCount, snapshot.disk.byteCount)
      try expect(
        Array(try Files.read(content).prefix(count)), ModelDisk(Array(snapshot.disk.bytes.prefix(count))),
        "\(snapshot.name) as the judge reads it")
    }
  }

  private func expect(_ now: [UInt8], _ model: ModelDisk, _ what: String) throws {
    guard now.count == model.byteCount else {
      throw TestFailure("\(what) has \(now.count) bytes instead of \(model.byteCount)")
    }
    if let place = ModelDisk.firstDifference(now, model.bytes) {
      throw TestFailure("\(what) differs at \(place)")
    }
  }
}

extension ProcessResult {
  /// compare -s also ends with 1 where sizes or room differ; what counts is the content.
  fileprivate func requireIdentical() throws {
    if stdoutText.contains("Content mismatch") || status > 1 {
      throw TestFailure("\(command): \(stdoutText)\(stderrText)")
    }
  }
}

/// A change of guest bytes that qemu-io, the engine and the model all know.
enum GuestChange {
  case write(Range<Int>, pattern: UInt8)
  case writePacked(Range<Int>, pattern: UInt8)
  case zeros(Range<Int>, freeing: Bool)
  case discard(Range<Int>)

  var command: String {
    switch self {
    case .write(let range, let pattern): "write -q -P \(pattern) \(range.lowerBound) \(range.count)"
    case .writePacked(let range, let pattern): "write -q -c -P \(pattern) \(range.lowerBound) \(range.count)"
    case .zeros(let range, let freeing):
      "write -q -z\(freeing ? " -u" : "") \(range.lowerBound) \(range.count)"
    case .discard(let range): "discard -q \(range.lowerBound) \(range.count)"
    }
  }

  func apply(to chain: ImageChain) throws {
    switch self {
    case .write(let range, let pattern):
      try chain.writeBytes([UInt8](repeating: pattern, count: range.count), at: UInt64(range.lowerBound))
    case .writePacked(let range, let pattern):
      try Self.storePacked([UInt8](repeating: pattern, count: range.count), at: range.lowerBound, chain)
    case .zeros(let range, let freeing):
      try chain.writeZeros(
        at: UInt64(range.lowerBound), count: UInt64(range.count), keepingRoom: !freeing)
    case .discard(let range): try chain.discard(at: UInt64(range.lowerBound), count: UInt64(range.count))
    }
  }

  private static func storePacked(_ bytes: [UInt8], at offset: Int, _ chain: ImageChain) throws {
    guard let layer = chain.top as? any CompressedWriting else { throw TestFailure("does not pack") }
    let packer = try layer.makePacker()
    let unit = Int(layer.compressionUnit)
    for start in stride(from: 0, to: bytes.count, by: unit) {
      var packed = [UInt8](repeating: 0, count: unit)
      let count = unsafe try bytes[start..<start + unit].withUnsafeBytes { source in
        unsafe try packed.withUnsafeMutableBytes { target in unsafe try packer.pack(source, into: target) }
      }
      guard let count else { throw TestFailure("does not get smaller") }
      unsafe try packed[..<count].withUnsafeBytes { raw in
        unsafe try layer.storeCompressed(
          raw, pieces: [PackedPiece(guestOffset: UInt64(offset + start), byteCount: count)])
      }
    }
    try layer.finishCompressed()
  }

  func apply(to disk: inout ModelDisk) {
    switch self {
    case .write(let range, let pattern), .writePacked(let range, let pattern):
      disk.write([UInt8](repeating: pattern, count: range.count), at: range.lowerBound)
    case .zeros(let range, _), .discard(let range): disk.writeZeros(at: range.lowerBound, count: range.count)
    }
  }
}
