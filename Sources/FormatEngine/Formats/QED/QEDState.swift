/// What the lock of a QED layer protects: header, tables, and where the next cluster goes.
struct QEDState {
  var prologue: QEDPrologue
  /// Guest bytes; while the disk grows it is ahead of the header.
  var virtualSize: UInt64
  let geometry: QEDGeometry
  let file: any ByteStore
  /// L2 tables, then the L1 table that points to them.
  let order: WriteOrder
  private let l1: EntryTable<UInt64>
  private let l2: TableEntries
  var allocator: BlockAllocator
  var end: FileEnd
  /// Something lies below that the image itself does not name.
  private let isOverlay: Bool
  /// The mark that the image needs a check is this session's, which takes it off again.
  private var isMarkedInUse = false

  /// L2 tables that are held at once: 16 MiB of them describe 128 GiB at 64 KiB clusters.
  private static let maximumCacheBytes: UInt64 = 16 * MiB

  init(_ prologue: QEDPrologue, file: any ByteStore, isOverlay: Bool) throws(EngineError) {
    self.prologue = prologue
    self.isOverlay = isOverlay
    self.file = file
    virtualSize = prologue.header.virtualSize
    geometry = prologue.header.geometry
    order = WriteOrder(stores: [file], firstRankPoints: true)
    let tables = (prologue.header.virtualSize >> geometry.coverageBits) + 1
    let (wanted, overflow) = tables.multipliedReportingOverflow(by: geometry.tableByteCount)
    l2 = TableEntries(
      in: file, tableByteCount: geometry.tableByteCount, .littleEndian,
      cacheByteCount: overflow ? Self.maximumCacheBytes : min(wanted, Self.maximumCacheBytes),
      writeOrder: order)
    l1 = EntryTable(
      in: file, at: prologue.header.l1Offset, count: geometry.entryCount, .littleEndian, writeOrder: order)
    end = try FileEnd(of: file)
    allocator = BlockAllocator(unit: geometry.clusterSize, end: geometry.end(ofFileOf: end.known))
  }

  /// Bytes of the whole clusters that the file is known to have. What lies past it is no image's.
  private var fileEnd: UInt64 { geometry.end(ofFileOf: end.known) }

  /// What is not stored reads as zeros.
  var hasNothingBelow: Bool { prologue.backing == nil && !isOverlay }

  // MARK: Looking up

  /// The longest run of like bytes from `offset` on, at most `limit` and within one L2 table.
  mutating func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    guard let table = try tableOffset(geometry.l1Index(offset)) else {
      return Extent(.below, length: try emptyRun(from: offset, limit: limit))
    }
    let first = try entry(at: offset, in: table)
    let end = try runEnd(
      of: first, from: offset, to: min(offset + limit, geometry.tableEnd(offset)), in: table)
    switch first {
    case .unallocated: return Extent(.below, length: end - offset)
    case .zeros: return Extent(.zeros, length: end - offset)
    case .cluster(let host):
      return Extent(.stored, length: end - offset, hostOffset: host + geometry.offsetInCluster(offset))
    }
  }

  /// Where the run of clusters ends that begins with the entry `first` for `offset`: like ones, and next to each
  /// other in the file. A damaged entry ends it; reading there is what fails.
  mutating func runEnd(
    of first: QEDEntry, from offset: UInt64, to end: UInt64, in table: UInt64
  ) throws(EngineError) -> UInt64 {
    var position = offset.aligned(downTo: geometry.clusterSize) + geometry.clusterSize
    var expected = first
    while position < end {
      if case .cluster(let host) = expected { expected = .cluster(hostOffset: host + geometry.clusterSize) }
      guard let next = try? entry(at: position, in: table), next == expected else { break }
      position += geometry.clusterSize
    }
    return min(position, end)
  }

  /// Guest bytes from `offset` on that have no L2 table.
  private mutating func emptyRun(from offset: UInt64, limit: UInt64) throws(EngineError) -> UInt64 {
    let end = offset + limit
    var position = geometry.tableEnd(offset)
    // Enough for 8 TiB at 64 KiB clusters; whoever wants more asks again.
    for _ in 0..<4096 {
      guard position < end else { break }
      guard try l1.entry(at: geometry.l1Index(position)) == 0 else { break }
      position = geometry.tableEnd(position)
    }
    return min(position, end) - offset
  }

  /// Host offset of the L2 table of an L1 entry, nil where there is none.
  mutating func tableOffset(_ l1Index: UInt64) throws(EngineError) -> UInt64? {
    let offset = try l1.entry(at: l1Index)
    guard offset != 0 else { return nil }
    let header = prologue.header
    if !header.holdsTable(at: offset, fileEnd: fileEnd) { try end.look() }
    guard header.holdsTable(at: offset, fileEnd: fileEnd) else {
      throw .corrupt("L2 table offset 0x\(String(offset, radix: 16)) is invalid", at: offset)
    }
    return offset
  }

  /// The entry for a guest offset in the L2 table at `table`.
  mutating func entry(at offset: UInt64, in table: UInt64) throws(EngineError) -> QEDEntry {
    let raw = try l2.entry(at: geometry.l2Index(offset), inTableAt: table)
    let entry = QEDEntry(raw: raw)
    guard case .cluster(let host) = entry else { return entry }
    let header = prologue.header
    if !header.holdsCluster(at: host, fileEnd: fileEnd) { try end.look() }
    guard header.holdsCluster(at: host, fileEnd: fileEnd) else {
      throw .corrupt("Data cluster offset 0x\(String(host, radix: 16)) is invalid", at: host)
    }
    return entry
  }

  // MARK: Changing

  /// Whether a host range of guest bytes, or an L2 table, touches the L1 table: then its entry is damaged, and must
  /// not be written by. (The header's clusters are nobody else's, see `entry`.)
  func requireNoMetadata(at hostOffset: UInt64, byteCount: UInt64, _ what: String = "Data cluster")
    throws(EngineError)
  {
    let l1Offset = prologue.header.l1Offset
    guard hostOffset >= l1Offset + geometry.tableByteCount || hostOffset + byteCount <= l1Offset else {
      throw .corrupt(
        "\(what) offset 0x\(String(hostOffset, radix: 16)) lies in the L1 table", at: hostOffset)
    }
  }

  func setEntry(at offset: UInt64, in table: UInt64, toRaw raw: UInt64) throws(EngineError) {
    try l2.setEntry(at: geometry.l2Index(offset), inTableAt: table, to: raw)
  }

  /// Host offset of the L2 table for a guest offset, which is made where there is none.
  mutating func writableTable(for offset: UInt64) throws(EngineError) -> UInt64 {
    let index = geometry.l1Index(offset)
    let byteCount = geometry.tableByteCount
    if let table = try tableOffset(index) {
      try requireNoMetadata(at: table, byteCount: byteCount, "L2 table")
      return table
    }
    guard allocator.end <= maximumFileOffset - byteCount else {
      throw EngineError(.tooLarge, "The image file has reached the largest size that a file can have")
    }
    let table = allocator.reserveEnd(byteCount)
    do throws(EngineError) {
      try end.makeZeros(from: table, to: table + byteCount)
      try l1.setEntry(at: index, to: table)
    } catch {
      allocator.takeBack(table, count: geometry.tableClusters)
      throw error
    }
    return table
  }

  // MARK: The session

  /// The first change of any kind: features that this writer does not keep are taken off.
  mutating func prepareToWrite() throws(EngineError) {
    guard prologue.header.autoclearFeatures != 0 else { return }
    var header = prologue.header
    header.autoclearFeatures = 0
    try header.write(to: file)
    prologue.header = header
  }

  /// Before the first change of the tables: from here on a crash may leave clusters that nothing uses.
  mutating func markInUse() throws(EngineError) {
    guard !prologue.header.features.contains(.needsCheck) else { return }
    var header = prologue.header
    header.features.insert(.needsCheck)
    header.autoclearFeatures = 0
    try header.write(to: file)
    prologue.header = header
    isMarkedInUse = true
  }

  /// As when the image was opened: the tables were changed in the file itself.
  mutating func startAfresh() throws(EngineError) {
    var fresh = try QEDState(try QEDPrologue.read(from: file), file: file, isOverlay: isOverlay)
    fresh.isMarkedInUse = isMarkedInUse && fresh.prologue.header.features.contains(.needsCheck)
    self = fresh
  }

  mutating func flush() throws(EngineError) {
    try order.flush()
    allocator.flushed()
  }

  /// All is on disk, and the image needs no check.
  mutating func close() throws(EngineError) {
    try flush()
    guard isMarkedInUse else { return }
    // Room that was set aside and given back.
    try end.cut(to: allocator.end)
    var header = prologue.header
    header.features.remove(.needsCheck)
    try header.write(to: file)
    prologue.header = header
    isMarkedInUse = false
  }
}
