/// Writes the grains of an extent from front to back, and never a byte before its last one: packed grains in ascending
/// order, each with its marker, behind those of one table the table, at the end the directory and the footer.
///
/// | what            | before it                                 | bytes                        |
/// |-----------------|-------------------------------------------|------------------------------|
/// | packed grain    | its guest sector (8 bytes), its size (4)  | padded to a sector           |
/// | grain table     | a marker of a sector                      | those of all its entries     |
/// | grain directory | a marker of a sector                      | padded to a sector           |
/// | footer          | a marker of a sector                      | the header, with the directory's place |
/// | end of stream   |                                           | a marker of a sector, zeros  |
///
/// ("Virtual Disk Format 5.0", "Stream-Optimized Compressed Sparse Extents".)
struct VMDKStreamWriter {
  private let header: VMDKSparseHeader
  private let file: any ByteStore
  private let grainBits: UInt64
  private let entriesInTable: UInt64
  private let tableCount: UInt64
  /// Host offset of the first byte in `pending`.
  private var position: UInt64
  /// Bytes that are not yet in the file.
  private var pending: [UInt8] = []
  /// So many are written at once: enough that system calls cost nothing, and little memory.
  private static let pendingByteCount = Int(128 * KiB)
  /// Entries of the table that is being filled, and its number.
  private var table: [UInt32] = []
  private var tableIndex: UInt64 = 0
  /// Sectors of the tables that are written.
  private var directory: [UInt32] = []
  /// No grain before this one can come any more.
  private var nextGrain: UInt64 = 0

  /// `header`: a checked one whose directory is at the end. What the file has behind its overhead is written over.
  init(_ header: VMDKSparseHeader, file: any ByteStore) throws(EngineError) {
    let start = max(header.overheadSectors, header.descriptorOffset + header.descriptorSectors, 1)
    guard start <= UInt64(UInt32.max) else { throw .corrupt("The end of the metadata is out of range") }
    self.header = header
    self.file = file
    grainBits = UInt64(header.grainSectors.trailingZeroBitCount) + 9
    entriesInTable = UInt64(header.entriesInTable)
    tableCount = header.capacity.dividedRoundingUp(by: header.grainSectors * entriesInTable)
    position = start * VMDKExtentLine.sectorByteCount
  }

  /// Host offset of what comes next.
  private var end: UInt64 { position + UInt64(pending.count) }

  /// The sector of what comes next, as entries have it.
  private func sector() throws(EngineError) -> UInt32 {
    guard let sector = UInt32(exactly: end / VMDKExtentLine.sectorByteCount) else {
      throw EngineError(.tooLarge, "The VMDK extent has reached the largest size that its file can have")
    }
    return sector
  }

  // MARK: Grains

  /// Packed grains, one behind the other in `bytes`. They are in the file when it returns.
  mutating func append(_ bytes: UnsafeRawBufferPointer, _ pieces: [PackedPiece]) throws(EngineError) {
    var start = 0
    for piece in pieces {
      unsafe try append(
        UnsafeRawBufferPointer(rebasing: bytes[start..<start + piece.byteCount]), at: piece.guestOffset)
      start += piece.byteCount
      if pending.count >= Self.pendingByteCount { try write() }
    }
    try write()
  }

  private mutating func append(_ packed: UnsafeRawBufferPointer, at guestOffset: UInt64) throws(EngineError) {
    let grain = guestOffset >> grainBits
    guard grain >= nextGrain, grain / entriesInTable < tableCount else {
      throw .invalid("Grains of a streamOptimized VMDK image come in the order of the disk")
    }
    nextGrain = grain + 1
    if grain / entriesInTable != tableIndex { try finishTable(nextIndex: grain / entriesInTable) }
    if table.isEmpty { table = Array(repeating: 0, count: Int(entriesInTable)) }
    table[Int(grain % entriesInTable)] = try sector()
    pending.append(littleEndian: (grain << grainBits) / VMDKExtentLine.sectorByteCount)
    pending.append(littleEndian: UInt32(truncatingIfNeeded: packed.count))
    unsafe pending.append(contentsOf: packed)
    pending.pad(toMultipleOf: Int(VMDKExtentLine.sectorByteCount))
  }

  private mutating func write() throws(EngineError) {
    try file.write(bytes: pending, at: position)
    position = end
    pending.removeAll(keepingCapacity: true)
  }

  // MARK: Tables

  /// A table without any grain is left out: its entry in the directory is 0.
  private mutating func finishTable(nextIndex: UInt64) throws(EngineError) {
    if !table.isEmpty {
      try append(table, marker: .grainTable)
      table = []
    }
    directory.append(contentsOf: repeatElement(0, count: Int(nextIndex) - directory.count))
    tableIndex = nextIndex
  }

  private mutating func append(_ entries: [UInt32], marker kind: VMDKMarker.Kind) throws(EngineError) {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(entries.count * 4)
    for entry in entries { bytes.append(littleEndian: entry) }
    bytes.pad(toMultipleOf: Int(VMDKExtentLine.sectorByteCount))
    let sectorCount = UInt64(bytes.count) / VMDKExtentLine.sectorByteCount
    pending += VMDKMarker(kind, sectorCount: sectorCount).serialised()
    if kind == .grainTable { directory.append(try sector()) }
    pending += bytes
  }

  /// Everything behind the last grain. Gives back the header as the footer has it.
  @discardableResult
  mutating func finish() throws(EngineError) -> VMDKSparseHeader {
    try finishTable(nextIndex: tableCount)
    var footer = header
    footer.directoryOffset = UInt64(try sector()) + 1
    try append(directory, marker: .grainDirectory)
    pending += VMDKMarker(.footer, sectorCount: 1).serialised() + footer.serialised()
    pending += VMDKMarker(.endOfStream, sectorCount: 0).serialised()
    try write()
    return footer
  }
}
