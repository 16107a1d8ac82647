extension DMGLayer: Checkable {
  /// Unpacks every chunk and compares the checksums that the image has: of each block table, of the data fork, and of
  /// all tables' checksums. qemu-img does not check this format.
  func check(progress: Progress) throws(EngineError) -> CheckReport {
    var checker = DMGChecker(self)
    try checker.checkChunks(progress)
    checker.compareTables()
    try checker.checkDataFork()
    return checker.report
  }
}

/// One run of a check.
struct DMGChecker {
  private let layer: DMGLayer
  private(set) var report = CheckReport()
  /// By the numbers of the tables; nil for one with a chunk that cannot be read.
  private var sums: [CRC32?]

  private static let pieceByteCount = MiB

  init(_ layer: DMGLayer) {
    self.layer = layer
    sums = layer.checksums.map { _ in CRC32() }
  }

  private mutating func found(_ what: String) {
    report.corruptions += 1
    report.findings.append("ERROR: \(what)")
  }

  /// Every chunk in the order of the disk, which is that of each table as well.
  mutating func checkChunks(_ progress: Progress) throws(EngineError) {
    var end: UInt64 = 0
    for (index, chunk) in layer.map.chunks.enumerated() {
      try progress.step(UInt64(index), of: UInt64(layer.map.chunks.count))
      if chunk.guestStart > end, end < layer.virtualSize { missing(end..<chunk.guestStart) }
      end = chunk.guestEnd
      do throws(EngineError) { try add(chunk) } catch {
        if error.code == .cancelled { throw error }
        sums[Int(chunk.table)] = nil
        if case .system = error.code {
          report.checkErrors += 1
        } else {
          found("sector \(chunk.firstSector): \(error.message)")
        }
      }
    }
    if end < layer.virtualSize { missing(end..<layer.virtualSize) }
  }

  private mutating func missing(_ range: Range<UInt64>) {
    found("no chunk has the \(range.count / 512) sectors from \(range.lowerBound / 512) on")
  }

  private mutating func add(_ chunk: DMGChunk) throws(EngineError) {
    // Free room may hold anything by the time that the sum is compared, so no sum counts it.
    guard chunk.kind != .ignored else { return }
    let number = Int(chunk.table)
    if chunk.kind == .zeros {
      sums[number]?.append(zeros: chunk.sectorCount * 512)
      return
    }
    try layer.requireStored(chunk)
    if chunk.kind == .raw {
      let sum = try sum(
        of: DMGTrailer.Part(offset: chunk.hostOffset, byteCount: chunk.sectorCount * 512), sums[number])
      sums[number] = sums[number] == nil ? nil : sum
      return
    }
    let bytes = AlignedBuffer(byteCount: Int(chunk.guestEnd - chunk.guestStart))
    unsafe try layer.unpack(chunk, into: bytes.bytes)
    unsafe sums[number]?.append(UnsafeRawBufferPointer(bytes.bytes))
  }

  /// A sum that goes on over bytes of the file.
  private func sum(of part: DMGTrailer.Part, _ start: CRC32?) throws(EngineError) -> CRC32 {
    var sum = start ?? CRC32()
    let buffer = AlignedBuffer(byteCount: Int(min(part.byteCount, Self.pieceByteCount)))
    var done: UInt64 = 0
    while done < part.byteCount {
      let piece = unsafe buffer.prefix(Int(min(part.byteCount - done, Self.pieceByteCount)))
      unsafe try layer.file.read(into: piece, at: part.offset + done)
      unsafe sum.append(UnsafeRawBufferPointer(piece))
      done += UInt64(piece.count)
    }
    return sum
  }

  mutating func compareTables() {
    var all: [UInt8] = []
    for (number, checksum) in layer.checksums.enumerated() {
      all.append(bigEndian: checksum.value)
      guard let expected = checksum.crc32, let sum = sums[number], sum.value != expected else { continue }
      found("block table \(number): its checksum is \(Self.hex(sum.value)), not \(Self.hex(expected))")
    }
    // The last one is over those that the image has, whether they are right or not.
    guard let expected = layer.trailer.masterChecksum.crc32,
      layer.checksums.allSatisfy({ $0.crc32 != nil })
    else { return }
    var sum = CRC32()
    unsafe all.withUnsafeBytes { unsafe sum.append($0) }
    if sum.value != expected {
      found("the checksum of the block tables is \(Self.hex(sum.value)), not \(Self.hex(expected))")
    }
  }

  mutating func checkDataFork() throws(EngineError) {
    guard let expected = layer.trailer.dataChecksum.crc32 else { return }
    do throws(EngineError) {
      let sum = try sum(of: layer.trailer.dataFork, nil)
      if sum.value != expected {
        found("the checksum of the data fork is \(Self.hex(sum.value)), not \(Self.hex(expected))")
      }
    } catch { report.checkErrors += 1 }
  }

  private static func hex(_ value: UInt32) -> String {
    let digits = String(value, radix: 16)
    return "0x" + String(repeating: "0", count: 8 - digits.utf8.count) + digits
  }
}
