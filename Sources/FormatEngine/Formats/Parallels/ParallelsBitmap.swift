import Synchronization

/// A dirty bitmap of a format extension (parallels.rst, "Dirty bitmaps feature").
///
///      0-7   sectors of the disk
///      8-23  id
///     24-27  granularity in sectors, a power of two
///     28-31  entries of the table
///     32-    the table, one entry of 8 bytes for each cluster of bits
struct ParallelsBitmap {
  let name: String
  let granularity: UInt64
  /// 0: no bit is set. 1: all are. Else the sector of the cluster that holds them.
  private let table: [UInt64]

  private static let tableOffset = 32

  init(_ span: RawSpan, _ range: Range<Int>, _ header: ParallelsHeader) throws(EngineError) {
    guard range.count >= Self.tableOffset else {
      throw .corrupt(
        "Too small Bitmap Feature area in Parallels Format Extension: \(range.count) bytes, expected at least "
          + "\(Self.tableOffset) bytes")
    }
    let start = range.lowerBound
    let sectorCount = try span.littleEndian(UInt64.self, at: start)
    guard sectorCount == header.sectorCount else {
      throw .corrupt(
        "Bitmap size (in sectors) \(sectorCount) differs from disk size in sectors \(header.sectorCount)")
    }
    name = Self.text(ofID: try span.bytes(in: start + 8..<start + 24))
    let sectors = UInt64(try span.littleEndian(UInt32.self, at: start + 24))
    guard sectors.nonzeroBitCount == 1 else {
      throw .corrupt("The granularity of a bitmap, \(sectors) sectors, is no power of two")
    }
    granularity = sectors * 512
    let count = Int(try span.littleEndian(UInt32.self, at: start + 28))
    guard count <= (range.count - Self.tableOffset) / 8 else {
      throw .corrupt("Bitmaps feature corrupted: l1 table exceeds extension data_size")
    }
    let bitCount = sectorCount.dividedRoundingUp(by: sectors)
    let expected = bitCount.dividedRoundingUp(by: 8).dividedRoundingUp(by: header.geometry.clusterSize)
    guard UInt64(count) == expected else {
      throw .corrupt(
        "Bitmap table size \(count) does not correspond to bitmap size and cluster size. Expected \(expected)"
      )
    }
    var table: [UInt64] = []
    for index in 0..<count {
      table.append(try span.littleEndian(UInt64.self, at: start + Self.tableOffset + index * 8))
    }
    self.table = table
  }

  /// An id as QEMU writes it: five groups of hexadecimal digits.
  private static func text(ofID id: [UInt8]) -> String {
    var text = ""
    for (index, byte) in id.enumerated() {
      if [4, 6, 8, 10].contains(index) { text += "-" }
      text += (byte < 16 ? "0" : "") + String(byte, radix: 16)
    }
    return text
  }

  var record: BitmapRecord { BitmapRecord(name: name, granularity: granularity) }

  /// Host offsets of the clusters with its bits.
  var clusters: [UInt64] { table.filter { $0 > 1 && $0 <= maximumFileOffset / 512 }.map { $0 * 512 } }

  /// Calls `body` with each run of guest bytes whose bits are set, in ascending order.
  func forEachDirtyRun(
    _ header: ParallelsHeader, from file: any ByteStore,
    _ body: (Range<UInt64>) throws(EngineError) -> Void
  ) throws(EngineError) {
    let clusterSize = header.geometry.clusterSize
    var runs = DirtyRuns(
      granularityBits: UInt64(granularity.trailingZeroBitCount), virtualSize: header.virtualSize)
    for (index, entry) in table.enumerated() where entry != 0 {
      let first = UInt64(index) * clusterSize * 8
      guard entry != 1 else {
        try runs.appendRun(first..<first + clusterSize * 8, body)
        continue
      }
      guard entry <= maximumFileOffset / 512, try entry * 512 < file.byteCount() else {
        throw .corrupt("Bits of bitmap '\(name)' lie past the end of the image file")
      }
      try forEachWord(from: file, at: entry * 512, count: clusterSize) {
        (word, position) throws(EngineError) in
        try runs.append(word, at: first + position * 8, body)
      }
    }
    try runs.finish(body)
  }

  /// Calls `body` with each 8 bytes of a cluster that are not 0.
  private func forEachWord(
    from file: any ByteStore, at hostOffset: UInt64, count: UInt64,
    _ body: (_ word: UInt64, _ position: UInt64) throws(EngineError) -> Void
  ) throws(EngineError) {
    var done: UInt64 = 0
    while done < count {
      let piece = try file.bytes(at: hostOffset + done, count: Int(min(count - done, MiB)))
      try piece.parsed { (span) throws(EngineError) in
        for position in stride(from: 0, to: span.byteCount, by: 8) {
          let word = try span.littleEndian(UInt64.self, at: position)
          if word != 0 { try body(word, done + UInt64(position)) }
        }
      }
      done += UInt64(piece.count)
    }
  }
}

/// Bitmaps are read only: a write drops them, because nobody records it.
extension ParallelsLayer: BitmapKeeping {
  func bitmaps() throws(EngineError) -> [BitmapRecord] { try storedBitmaps().map(\.record) }

  func bitmap(named name: String) throws(EngineError) -> BitmapRecord? {
    try bitmaps().first { $0.name == name }
  }

  func forEachDirtyRun(
    of name: String, _ body: (Range<UInt64>) throws(EngineError) -> Void
  ) throws(EngineError) {
    let header = state.withLock { $0.header }
    guard let bitmap = try storedBitmaps().first(where: { $0.name == name }) else {
      throw BitmapEditor.notFound(name)
    }
    try bitmap.forEachDirtyRun(header, from: file, body)
  }

  private func storedBitmaps() throws(EngineError) -> [ParallelsBitmap] {
    let header = state.withLock { $0.header }
    return try ParallelsExtension.read(header, from: file)?.bitmaps ?? []
  }
}
