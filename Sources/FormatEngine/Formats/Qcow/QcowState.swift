/// What the lock of a QCOW layer protects: header, tables, and where the next bytes go.
struct QcowState {
  var prologue: QcowPrologue
  /// Guest bytes; while the disk grows that is ahead of the file's header.
  var virtualSize: UInt64 { prologue.header.diskSize }
  let geometry: QcowGeometry
  let file: any ByteStore
  /// L2 tables, then the L1 table that points to them.
  let order: WriteOrder
  private let l1: EntryTable<UInt64>
  private let l2: TableEntries
  var allocator: BlockAllocator
  /// Clusters and tables that start past it are damage.
  var end: FileEnd
  private let fixedRanges: [Range<UInt64>]
  /// Something lies below that the image itself does not name.
  let isOverlay: Bool
  /// Room was set aside at the end of the file.
  var hasAllocated = false
  /// Whether no two entries lead to the same bytes, so that the room of a cluster is nobody else's; nil until the first
  /// one goes.
  private var hasClustersApart: Bool?

  /// L2 tables that are held at once: 4 MiB of them describe 2 GiB at 4 KiB clusters.
  private static let maximumCacheBytes: UInt64 = 4 * MiB

  init(_ prologue: QcowPrologue, file: any ByteStore, isOverlay: Bool) throws(EngineError) {
    self.prologue = prologue
    self.isOverlay = isOverlay
    self.file = file
    geometry = prologue.header.geometry
    order = WriteOrder(stores: [file], firstRankPoints: true)
    // Both factors are small: at most 2^28 tables of at most 64 KiB.
    let wanted = prologue.header.l1Count * geometry.l2ByteCount
    l2 = TableEntries(
      in: file, tableByteCount: geometry.l2ByteCount, .bigEndian,
      cacheByteCount: min(wanted, Self.maximumCacheBytes), writeOrder: order)
    l1 = EntryTable(
      in: file, at: prologue.header.l1Offset, count: prologue.header.l1Count, .bigEndian, writeOrder: order)
    end = try FileEnd(of: file)
    fixedRanges = prologue.header.fixedRanges
    allocator = BlockAllocator(unit: geometry.clusterSize, end: end.known)
  }

  /// What is not stored reads as zeros.
  var hasNothingBelow: Bool { prologue.backing == nil && !isOverlay }

  // MARK: Looking up

  /// The longest run of like bytes from `offset` on, at most `limit` and within one L2 table.
  mutating func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    guard let table = try tableOffset(geometry.l1Index(offset)) else {
      return Extent(.below, length: try emptyRun(from: offset, limit: limit))
    }
    let first = try entry(at: offset, in: table)
    let last = min(offset + limit, geometry.tableEnd(offset))
    switch first {
    case .unallocated:
      return Extent(.below, length: try runEnd(of: first, from: offset, to: last, in: table) - offset)
    case .cluster(let host):
      return Extent(
        .stored, length: try runEnd(of: first, from: offset, to: last, in: table) - offset,
        hostOffset: host + geometry.offsetInCluster(offset), isEncrypted: prologue.header.isEncrypted)
    case .packed(let host, _):
      let clusterEnd = offset.aligned(downTo: geometry.clusterSize) + geometry.clusterSize
      return Extent(.compressed, length: min(clusterEnd, last) - offset, hostOffset: host)
    }
  }

  /// Where the run of clusters ends that begins with the entry `first` for `offset`: like ones, and next to each
  /// other in the file. A damaged entry ends it; reading there is what fails.
  mutating func runEnd(
    of first: QcowEntry, from offset: UInt64, to end: UInt64, in table: UInt64
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
    // Whoever wants more asks again.
    for _ in 0..<4096 {
      guard position < end else { break }
      guard try l1Entry(geometry.l1Index(position)) == 0 else { break }
      position = geometry.tableEnd(position)
    }
    return min(position, end) - offset
  }

  /// Past the end of the table, which is where a disk that is growing is written to, there is nothing.
  private func l1Entry(_ index: UInt64) throws(EngineError) -> UInt64 {
    index < l1.count ? try l1.entry(at: index) : 0
  }

  /// Host offset of the L2 table of an L1 entry, nil where there is none.
  mutating func tableOffset(_ l1Index: UInt64) throws(EngineError) -> UInt64? {
    let offset = try l1Entry(l1Index)
    guard offset != 0 else { return nil }
    try requireRoom(at: offset, byteCount: geometry.l2ByteCount, "L2 table")
    return offset
  }

  /// The entry for a guest offset in the L2 table at `table`.
  mutating func entry(at offset: UInt64, in table: UInt64) throws(EngineError) -> QcowEntry {
    let entry = QcowEntry(
      raw: try l2.entry(at: geometry.l2Index(offset), inTableAt: table), geometry)
    switch entry {
    case .unallocated: break
    case .cluster(let host):
      guard host.isAligned(to: 512) else {
        throw .corrupt("Cluster offset 0x\(String(host, radix: 16)) is not aligned", at: host)
      }
      try requireRoom(at: host, byteCount: geometry.clusterSize, "Cluster")
    case .packed(let host, let byteCount):
      guard byteCount > 0 else { throw .corrupt("Compressed cluster of no bytes", at: host) }
      try requireRoom(at: host, byteCount: byteCount, "Compressed cluster")
    }
    return entry
  }

  /// What starts in front of the tables or past the end of the file is damage; the last one may be cut off.
  private mutating func requireRoom(at hostOffset: UInt64, byteCount: UInt64, _ what: String)
    throws(EngineError)
  {
    if hostOffset >= end.known { try end.look() }
    guard hostOffset >= UInt64(QcowHeader.byteCount), hostOffset < end.known,
      hostOffset <= maximumFileOffset - byteCount
    else {
      throw .corrupt(
        "\(what) at 0x\(String(hostOffset, radix: 16)) does not lie in the image file", at: hostOffset)
    }
  }

  // MARK: Changing

  /// Nothing must go where a damaged entry says that it is, if header, L1 table or name are there.
  func requireNoMetadata(at hostOffset: UInt64, byteCount: UInt64, _ what: String = "Cluster")
    throws(EngineError)
  {
    guard !touchesMetadata(at: hostOffset, byteCount: byteCount) else {
      throw .corrupt(
        "\(what) at 0x\(String(hostOffset, radix: 16)) lies in the tables of the image", at: hostOffset)
    }
  }

  private func touchesMetadata(at hostOffset: UInt64, byteCount: UInt64) -> Bool {
    let range = hostOffset..<hostOffset + byteCount
    return fixedRanges.contains { $0.overlaps(range) }
  }

  /// A cluster that no entry in memory points to any more can be used again, if new ones could lie there: at a
  /// multiple of their size, and not where a damaged entry led.
  private mutating func release(_ hostOffset: UInt64) {
    guard hostOffset.isAligned(to: geometry.clusterSize),
      !touchesMetadata(at: hostOffset, byteCount: geometry.clusterSize)
    else { return }
    allocator.release(hostOffset)
  }

  /// Changes an entry whose cluster, if it has one, is then nobody's. Where clusters overlap, which is damage, it may be
  /// another one's, and stays as it is.
  mutating func replaceEntry(at offset: UInt64, in table: UInt64, withRaw raw: UInt64) throws(EngineError) {
    guard case .cluster(let host) = try entry(at: offset, in: table) else {
      return try setEntry(at: offset, in: table, toRaw: raw)
    }
    let isAlone = hasClustersApart ?? areClustersApart()
    hasClustersApart = isAlone
    try setEntry(at: offset, in: table, toRaw: raw)
    if isAlone { release(host) }
  }

  /// As the tables in the file have it: what is new in memory lies apart from all that was there. False where that cannot be
  /// said.
  private func areClustersApart() -> Bool {
    guard var checker = try? QcowChecker(prologue, file: file, repairing: nil, progress: .none),
      let report = try? checker.run()
    else { return false }
    return report.corruptions == 0 && report.checkErrors == 0
  }

  func setEntry(at offset: UInt64, in table: UInt64, toRaw raw: UInt64) throws(EngineError) {
    try l2.setEntry(at: geometry.l2Index(offset), inTableAt: table, to: raw)
  }

  /// Host offset of the L2 table for a guest offset, which is made where there is none.
  mutating func writableTable(for offset: UInt64) throws(EngineError) -> UInt64 {
    let index = geometry.l1Index(offset)
    if let table = try tableOffset(index) {
      try requireNoMetadata(at: table, byteCount: geometry.l2ByteCount, "L2 table")
      return table
    }
    let table = try reserve(geometry.l2ByteCount, isAligned: true)
    try end.makeZeros(from: table, to: table + geometry.l2ByteCount)
    try l1.setEntry(at: index, to: table)
    return table
  }

  /// Room at the end of the file, at a multiple of the cluster size or right behind what is there.
  mutating func reserve(_ byteCount: UInt64, isAligned: Bool) throws(EngineError) -> UInt64 {
    hasAllocated = true
    if isAligned { alignEnd() }
    guard allocator.end <= maximumFileOffset - byteCount else {
      throw EngineError(.tooLarge, "The image file has reached the largest size that a file can have")
    }
    return allocator.reserveEnd(byteCount)
  }

  /// Clusters begin at multiples of their size, as in QEMU.
  mutating func alignEnd() {
    let end = allocator.end
    _ = allocator.reserveEnd(end.aligned(upTo: geometry.clusterSize) - end)
  }

  // MARK: The session

  mutating func flush() throws(EngineError) {
    try order.flush()
    allocator.flushed()
  }

  mutating func close() throws(EngineError) {
    try flush()
    guard hasAllocated else { return }
    // Room that was set aside and given back.
    try end.cut(to: allocator.end)
  }
}
