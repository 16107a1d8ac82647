/// Where the bits of one bitmap are: an entry for each cluster of them (qcow2.txt, "Bitmap table").
///
///     bit       0   without an offset: all bits are set
///          9 - 55   host offset of the cluster, 0: none
struct Qcow2BitmapTable {
  /// Raw entries, all of them valid.
  var entries: [UInt64]

  private static let onesBit: UInt64 = 1
  private static let offsetMask: UInt64 = 0x00ff_ffff_ffff_fe00

  enum Part: Equatable {
    case zeros
    case ones
    /// Host offset of the cluster.
    case stored(UInt64)
  }

  /// All zeros.
  init(count: UInt64) { entries = [UInt64](repeating: 0, count: Int(count)) }

  /// Reads the table of `bitmap`, which `Qcow2Bitmap.validate` has passed: at most 8 MiB.
  init(_ bitmap: Qcow2Bitmap, _ geometry: Qcow2Geometry, from file: any ByteStore) throws(EngineError) {
    let byteCount = UInt64(bitmap.tableCount) * 8
    guard try bitmap.tableOffset + byteCount <= file.byteCount().aligned(upTo: geometry.clusterSize) else {
      throw .corrupt(
        "The table of bitmap '\(bitmap.name)' lies past the end of the image file", at: bitmap.tableOffset)
    }
    let bytes = try file.bytes(at: bitmap.tableOffset, count: Int(byteCount))
    entries = try bytes.parsed { (span) throws(EngineError) in
      var entries: [UInt64] = []
      entries.reserveCapacity(Int(bitmap.tableCount))
      for position in stride(from: 0, to: span.byteCount, by: 8) {
        entries.append(try span.bigEndian(UInt64.self, at: position))
      }
      return entries
    }
    for entry in entries {
      let offset = entry & Self.offsetMask
      let isSound =
        offset.isAligned(to: geometry.clusterSize)
        && entry & ~Self.offsetMask & ~(offset == 0 ? Self.onesBit : 0) == 0
      guard isSound else {
        throw .corrupt(
          "Could not read bitmap_table table from image for bitmap '\(bitmap.name)': Invalid argument",
          at: bitmap.tableOffset)
      }
    }
  }

  func part(_ index: Int) -> Part {
    let entry = entries[index]
    return entry == 0 ? .zeros : entry == Self.onesBit ? .ones : .stored(entry)
  }

  mutating func set(_ index: Int, to part: Part) {
    switch part {
    case .zeros: entries[index] = 0
    case .ones: entries[index] = Self.onesBit
    case .stored(let offset): entries[index] = offset
    }
  }

  func serialised() -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(entries.count * 8)
    for entry in entries { bytes.append(bigEndian: entry) }
    return bytes
  }

  /// Host offsets of all clusters with bits.
  var clusters: [UInt64] { entries.filter { $0 != 0 && $0 != Self.onesBit } }

  /// The bytes of a part, a whole cluster.
  func bytes(_ index: Int, _ geometry: Qcow2Geometry, from file: any ByteStore) throws(EngineError)
    -> [UInt8]
  {
    switch part(index) {
    case .zeros: return [UInt8](repeating: 0, count: Int(geometry.clusterSize))
    case .ones: return [UInt8](repeating: 0xff, count: Int(geometry.clusterSize))
    case .stored(let offset):
      guard try offset < file.byteCount() else {
        throw .corrupt("Bits of a bitmap lie past the end of the image file", at: offset)
      }
      return try file.bytes(at: offset, count: Int(geometry.clusterSize))
    }
  }

  /// Calls `body` with each run of guest bytes whose bits are set, in ascending order.
  func forEachDirtyRun(
    _ granularityBits: UInt64, _ header: Qcow2Header, from file: any ByteStore,
    _ body: (Range<UInt64>) throws(EngineError) -> Void
  ) throws(EngineError) {
    let geometry = header.geometry
    let bitsInPart = geometry.clusterSize * 8
    var runs = DirtyRuns(granularityBits: granularityBits, virtualSize: header.virtualSize)
    for index in entries.indices {
      let first = UInt64(index) * bitsInPart
      switch part(index) {
      case .zeros: continue
      case .ones: try runs.appendRun(first..<first + bitsInPart, body)
      case .stored:
        let bytes = try bytes(index, geometry, from: file)
        try bytes.parsed { (span) throws(EngineError) in
          for position in stride(from: 0, to: span.byteCount, by: 8) {
            let word = try span.littleEndian(UInt64.self, at: position)
            if word != 0 { try runs.append(word, at: first + UInt64(position) * 8, body) }
          }
        }
      }
    }
    try runs.finish(body)
  }
}
