extension VMDKFormat: SequentialFormat {
  static func openStream(_ pipe: PipeReader, _ request: LayerRequest) throws(EngineError)
    -> any SequentialDisk
  {
    try VMDKPipeDisk(pipe)
  }
}

/// The disk of a streamOptimized image that comes out of a pipe: its records are followed from marker to marker.
final class VMDKPipeDisk: SequentialDisk, @unchecked Sendable {
  // @unchecked: one thread at a time.
  let formatName = VMDKFormat.name
  private let pipe: PipeReader
  private let head: VMDKStreamHead
  private let grainSize: UInt64
  private let size: UInt64
  private let unpacker: DeflateUnpacker
  /// A record: marker and packed bytes, in whole sectors.
  private let record: AlignedBuffer
  /// The latest grain, and which guest bytes it has.
  private let unpacked: AlignedBuffer
  private var grain: Range<UInt64> = 0..<0
  private var grainCount: UInt64 = 0
  private var hasFooter = false
  /// The last record was read.
  private var hasEnded = false
  /// Guest bytes that were taken.
  private var position: UInt64 = 0

  private static let sector = VMDKExtentLine.sectorByteCount

  init(_ pipe: PipeReader) throws(EngineError) {
    self.pipe = pipe
    head = try VMDKStreamHead(pipe)
    grainSize = head.header.grainSectors * Self.sector
    size = head.header.capacity * Self.sector
    unpacker = try DeflateUnpacker(.zlib)
    // Bytes that do not get smaller by packing grow a little; twice the grain is what QEMU takes.
    record = AlignedBuffer(byteCount: 2 * Int(grainSize) + 2 * Int(Self.sector))
    unpacked = AlignedBuffer(byteCount: Int(grainSize))
  }

  var virtualSize: UInt64? { size }
  var certainByteCount: UInt64 { size }

  func whileWaiting(_ proceed: @escaping @Sendable () throws(EngineError) -> Void) { pipe.proceed = proceed }

  // MARK: Guest bytes

  /// Where the next stored bytes begin, or the end.
  private func nextStored() throws(EngineError) -> UInt64 {
    while grain.upperBound <= position && !hasEnded { try readRecord() }
    return grain.upperBound <= position ? size : max(grain.lowerBound, position)
  }

  func zeroRun() throws(EngineError) -> UInt64 { try nextStored() - position }

  func skip(_ count: UInt64) throws(EngineError) -> UInt64 {
    let done = min(count, size - position)
    position += done
    return done
  }

  func read(into buffer: UnsafeMutableRawBufferPointer) throws(EngineError) -> Int {
    let count = Int(min(UInt64(buffer.count), size - position))
    var done = 0
    while done < count {
      let next = try nextStored()
      let isZero = next > position
      let end = min(isZero ? next : grain.upperBound, position + UInt64(count - done))
      // SAFETY: `end` is at most what is left of the buffer, and of the grain.
      let piece = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[done..<done + Int(end - position)])
      if isZero {
        unsafe piece.initializeMemory(as: UInt8.self, repeating: 0)
      } else {
        let start = Int(position - grain.lowerBound)
        unsafe piece.copyMemory(
          from: UnsafeRawBufferPointer(rebasing: unpacked.bytes[start..<start + piece.count]))
      }
      done += piece.count
      position = end
    }
    return done
  }

  func finish() throws(EngineError) {
    while !hasEnded { try readRecord() }
    try head.require(grainCount: grainCount, path: pipe.path)
    // Whoever writes the pipe may have more to say, and is not to find it closed.
    while try pipe.skip(GiB) > 0 {}
  }

  // MARK: Records

  private func readRecord() throws(EngineError) {
    let sectorSize = Int(Self.sector)
    let got = unsafe try pipe.read(into: record.prefix(sectorSize))
    guard got > 0 else {
      // Without a footer only the tables tell whether this is the end.
      guard head.hasTables else { throw incomplete }
      hasEnded = true
      return
    }
    // The last record of a file without a footer need not be padded, and may be shorter than a sector.
    guard got == sectorSize || (head.hasTables && got >= Int(VMDKMarker.grainPrefix)) else {
      throw incomplete
    }
    unsafe UnsafeMutableRawBufferPointer(rebasing: record.bytes[got..<sectorSize])
      .initializeMemory(as: UInt8.self, repeating: 0)
    let marker = try unsafe [UInt8](record.prefix(16)).parsed { (span) throws(EngineError) in
      try VMDKMarker(span)
    }
    if marker.size > 0 { return try readGrain(marker, byteCount: got) }
    guard got == sectorSize else { throw incomplete }
    switch VMDKMarker.Kind(rawValue: marker.kind) {
    case .endOfStream:
      // Behind tables that stand first this is a gap.
      guard !head.hasTables else { return }
      guard hasFooter else { throw .corrupt("The VMDK stream has no footer: it is incomplete") }
      hasEnded = true
    case .grainTable, .grainDirectory: try skipSectors(marker.value)
    case .footer: try readFooter(marker)
    case nil: throw .corrupt("The VMDK stream has a marker of the unknown kind \(marker.kind)")
    }
  }

  private var incomplete: EngineError {
    .corrupt("'\(pipe.path)' ended in the middle of the VMDK stream: it is incomplete")
  }

  private func skipSectors(_ count: UInt64) throws(EngineError) {
    let byteCount = try count.multiplied(by: Self.sector, orCorrupt: "The length of a table")
    guard try pipe.skip(byteCount) == byteCount else { throw incomplete }
  }

  private func readFooter(_ marker: VMDKMarker) throws(EngineError) {
    let sectorSize = Int(Self.sector)
    guard marker.value == 1, unsafe try pipe.read(into: record.prefix(sectorSize)) == sectorSize else {
      throw incomplete
    }
    let footer = try unsafe [UInt8](record.prefix(sectorSize)).parsed { (span) throws(EngineError) in
      try VMDKSparseHeader(span)
    }
    guard footer.capacity == head.header.capacity else {
      throw .corrupt("The footer of the VMDK file does not fit its header")
    }
    hasFooter = true
  }

  /// `byteCount`: of its first sector that is read, all but at the end of the pipe.
  private func readGrain(_ marker: VMDKMarker, byteCount: Int) throws(EngineError) {
    let sectorSize = Int(Self.sector)
    let (prefix, packedCount) = (Int(VMDKMarker.grainPrefix), Int(marker.size))
    guard marker.value < head.header.capacity, marker.value.isAligned(to: head.header.grainSectors),
      packedCount <= record.byteCount - sectorSize - prefix
    else {
      throw .corrupt("The VMDK stream has a damaged grain: sector \(marker.value), \(marker.size) bytes")
    }
    let start = marker.value * Self.sector
    guard start >= grain.upperBound else {
      throw .unsupported(
        "The grains of the VMDK stream are not in the order of the disk: save it as a file first")
    }
    let whole = Int(UInt64(prefix + packedCount).aligned(upTo: Self.sector))
    guard byteCount == sectorSize || byteCount >= prefix + packedCount else { throw incomplete }
    // SAFETY: `whole` is at most the record's buffer, by the guard.
    let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: record.bytes[sectorSize..<whole])
    let got = unsafe try pipe.read(into: rest)
    guard got == rest.count || (head.hasTables && sectorSize + got >= prefix + packedCount) else {
      throw incomplete
    }
    let length = min(grainSize, size - start)
    unsafe try VMDKGrainPacking.unpack(
      UnsafeRawBufferPointer(rebasing: record.bytes[prefix..<prefix + packedCount]), with: unpacker,
      into: unpacked.prefix(Int(length)), grainSize: Int(grainSize))
    grain = start..<start + length
    grainCount += 1
  }
}
