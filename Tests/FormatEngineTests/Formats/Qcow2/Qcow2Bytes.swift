import FormatEngine
import TestSupport
import Testing

/// The bytes of a qcow2 image, to be damaged field by field.
struct Qcow2Bytes {
  var bytes: [UInt8]

  /// A good image of 1 MiB by the judge: patterns in clusters 0, 1, 2 and 5, one snapshot, the clusters
  /// written again after it.
  static func judged(_ options: [String] = [], hasSnapshot: Bool = true) throws -> Qcow2Bytes {
    let key = options.joined(separator: ",") + "\(hasSnapshot)"
    if let known = made.withLock({ $0[key] }) { return Qcow2Bytes(bytes: known) }
    let bytes = try TemporaryFolder.with { folder in
      let path = folder.file("image")
      let all = (["cluster_size=64k"] + options).joined(separator: ",")
      try ReferenceTool.qemuImg("create", "-q", "-f", "qcow2", "-o", all, path, "1M")
      try ReferenceTool.io(
        [
          "write -q -P 10 0 64k", "write -q -P 11 64k 64k", "write -q -P 12 128k 64k",
          "write -q -P 15 320k 64k",
        ],
        on: path, format: "qcow2")
      if hasSnapshot {
        try ReferenceTool.qemuImg("snapshot", "-c", "before", path)
        try ReferenceTool.io(["write -q -P 20 0 64k"], on: path, format: "qcow2")
      }
      return try Files.read(path)
    }
    made.withLock { $0[key] = bytes }
    return Qcow2Bytes(bytes: bytes)
  }

  private static let made = Guarded<[String: [UInt8]]>([:])

  func number(at offset: Int, width: Int) -> UInt64 {
    bytes[offset..<offset + width].reduce(0) { $0 << 8 | UInt64($1) }
  }

  mutating func put(_ value: UInt64, at offset: Int, width: Int) {
    for index in 0..<width {
      bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * (width - 1 - index)))
    }
  }

  func with(_ value: UInt64, at offset: Int, width: Int) -> Qcow2Bytes {
    var copy = self
    copy.put(value, at: offset, width: width)
    return copy
  }

  var l1Offset: Int { Int(clamping: number(at: 40, width: 8)) }
  var snapshotsOffset: Int { Int(clamping: number(at: 64, width: 8)) }
  /// Where the first L2 table of the disk is.
  var l2Offset: Int { Int(number(at: l1Offset, width: 8) & 0x00ff_ffff_ffff_fe00) }

  /// Where an extension's content is, and how long it is.
  func headerExtension(_ type: UInt64) -> (offset: Int, count: Int)? {
    var position = number(at: 4, width: 4) == 2 ? 72 : Int(number(at: 100, width: 4))
    while position < 60_000 {
      let (found, count) = (number(at: position, width: 4), Int(number(at: position + 4, width: 4)))
      if found == 0 { return nil }
      if found == type { return (position + 8, count) }
      position += 8 + (count + 7) / 8 * 8
    }
    return nil
  }

  /// Opens it alone, as bytes in memory.
  func open(_ access: FileAccess = .readOnly, isForInspection: Bool = false) throws(EngineError) -> ImageChain
  {
    try ImageChain.over(
      MemoryStore(bytes), format: Qcow2Format.self, access: access, isForInspection: isForInspection)
  }

  /// The error of opening it, nil where it opens.
  func openError(_ access: FileAccess = .readOnly) -> EngineError? {
    do throws(EngineError) {
      _ = try open(access)
      return nil
    } catch { return error }
  }

  /// Uses it in all ways that read it; engine errors are fine.
  func useEverything(_ what: String) throws {
    let row = ConformanceRow(
      name: what, format: "qcow2", size: 1 << 20, maker: .engine(options: [:], baseSize: nil),
      isWritable: false)
    try TemporaryFolder.with { folder in
      let fixture = Fixture(row: row, path: folder.file("image"), model: ModelDisk([]), folder: folder)
      try Deadline.within(seconds: 30, what) { try ConformanceTests.useEverything(fixture, bytes) }
    }
  }
}
