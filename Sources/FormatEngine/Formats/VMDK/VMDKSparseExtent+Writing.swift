/// Where written bytes go: grains are set aside at the end of the file, written, flushed, and then linked in both
/// copies of the tables.
extension VMDKSparseExtent {
  func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation {
    try prepareToWrite()
    let start = offset - geometry.offsetInGrain(offset)
    let tableEnd = (geometry.tableIndex(offset) + 1) << geometry.coverageBits
    let end = min(offset + limit, tableEnd, geometry.byteCount)
    if try tables.tableOffset(geometry.tableIndex(offset), copy: 0) == nil {
      try addTable(geometry.tableIndex(offset))
    }
    let entry = try entryForWriting(at: offset)
    if entry.isStored { return try inPlace(at: offset, end: end) }
    var wanted: UInt64 = 1
    while start + wanted << geometry.grainBits < end {
      guard try !entryForWriting(at: start + wanted << geometry.grainBits).isStored else { break }
      wanted += 1
    }
    let limit = VMDKGrainGeometry.maximumFileByteCount
    guard let room = try room?.allocator.allocate(atMost: wanted, limit: limit) else {
      throw Self.notPrepared
    }
    let fileEnd = try file.byteCount()
    // The last grain of an extent may be cut short; its room is not.
    let length = min(room.count << geometry.grainBits, geometry.byteCount - start)
    return Allocation(
      guestOffset: start, length: length, hostOffset: room.hostOffset, isNew: true,
      readsAsZeros: room.isNew && room.hostOffset >= fileEnd)
  }

  private func inPlace(at offset: UInt64, end: UInt64) throws(EngineError) -> Allocation {
    let found = try extent(at: offset, limit: end - offset)
    guard found.source == .stored, let host = found.hostOffset else {
      throw .corrupt("Grain is not where its table says", at: offset)
    }
    try requireOwnRoom(host, byteCount: found.length, grain: host - geometry.offsetInGrain(offset))
    return Allocation(guestOffset: offset, length: found.length, hostOffset: host, isNew: false)
  }

  /// Refuses a place in the image's own tables, or one where new grains go. That is so where the file ends inside of a
  /// grain that does not begin at a multiple of its size. `grain`: where the first grain of the place begins.
  private func requireOwnRoom(_ hostOffset: UInt64, byteCount: UInt64, grain: UInt64) throws(EngineError) {
    guard let room else { throw Self.notPrepared }
    try room.metadata.requireNone(at: hostOffset, byteCount: byteCount)
    guard grain.isAligned(to: geometry.grainSize) || hostOffset + byteCount <= room.firstNew else {
      throw .corrupt("A grain of the VMDK extent is cut off by the end of the file", at: hostOffset)
    }
  }

  func link(_ allocation: Allocation) throws(EngineError) {
    let count = allocation.length.dividedRoundingUp(by: geometry.grainSize)
    // Files end with a whole grain: some readers refuse others. The last byte is nobody else's.
    let end = allocation.hostOffset + count << geometry.grainBits
    if try file.byteCount() < end { try file.write(bytes: [0], at: end - 1) }
    try noteEnd(end)
    try tables.setEntries(at: allocation.guestOffset, count: Int(count)) { number in
      VMDKGrainEntry(hostOffset: allocation.hostOffset + UInt64(number) << geometry.grainBits)
    }
  }

  func abandon(_ allocation: Allocation) {
    let count = allocation.length.dividedRoundingUp(by: geometry.grainSize)
    room?.allocator.takeBack(allocation.hostOffset, count: count)
  }

  func setZeros(at offset: UInt64, limit: UInt64, keepingRoom: Bool) throws(EngineError) -> UInt64 {
    try change(at: offset, limit: limit) { entry, isWhole in
      if entry == .zeros || (entry == .none && !hasParent) { return entry }
      guard isWhole, !(entry.isStored && keepingRoom) else { return nil }
      return zeroEntry
    }
  }

  func discard(at offset: UInt64, limit: UInt64) throws(EngineError) -> UInt64 {
    // What cannot be let go of stays as it is.
    try change(at: offset, limit: limit) { entry, isWhole in
      guard isWhole, entry.isStored, let zeroEntry else { return entry }
      return zeroEntry
    }
  }

  /// What a grain without content is; nil where it would show what lies below.
  private var zeroEntry: VMDKGrainEntry? {
    hasParent ? geometry.hasZeroedGrains ? .zeros : nil : VMDKGrainEntry.none
  }

  /// Changes entries of the grains from `offset` on to what `body` makes of them, until it gives nil; says how many
  /// bytes that were.
  private func change(
    at offset: UInt64, limit: UInt64, _ body: (VMDKGrainEntry, _ isWhole: Bool) -> VMDKGrainEntry?
  ) throws(EngineError) -> UInt64 {
    try prepareToWrite()
    let tableEnd = (geometry.tableIndex(offset) + 1) << geometry.coverageBits
    let requestEnd = offset + limit
    let end = min(requestEnd, tableEnd)
    if try tables.tableOffset(geometry.tableIndex(offset), copy: 0) == nil {
      let start = offset - geometry.offsetInGrain(offset)
      let isWhole = start == offset && end == min(tableEnd, geometry.byteCount)
      guard let new = body(.none, isWhole) else { return 0 }
      if new == .none { return end - offset }
      try addTable(geometry.tableIndex(offset))
    }
    var position = offset
    while position < end {
      let start = position - geometry.offsetInGrain(position)
      let grainEnd = min(start + geometry.grainSize, geometry.byteCount)
      let entry = try entryForWriting(at: position)
      guard let new = body(entry, start == position && grainEnd <= requestEnd) else { break }
      if new != entry {
        if entry.isStored {
          try requireOwnRoom(entry.hostOffset, byteCount: geometry.grainSize, grain: entry.hostOffset)
        }
        let isAlone = entry.isStored ? try hasGrainsApart() : false
        try tables.setEntries(at: start, count: 1) { _ in new }
        if isAlone { release(entry.hostOffset) }
      }
      position = min(grainEnd, end)
    }
    return position - offset
  }

  /// Where grains overlap, which is damage, the room of one may be another one's: then none is let go of. Looked at when the first
  /// is to go; what is new until then lies apart from all that was there.
  private func hasGrainsApart() throws(EngineError) -> Bool {
    if let known = room?.hasGrainsApart { return known }
    let found = try VMDKGrainPlaces.areApart(tables)
    room?.hasGrainsApart = found
    return found
  }

  private func release(_ hostOffset: UInt64) {
    room?.allocator.release(hostOffset)
    released.append(hostOffset)
  }

  func flush() throws(EngineError) {
    try tables.order.flush()
    // Nothing on disk refers to them any more.
    for hostOffset in released { file.forget(at: hostOffset, count: geometry.grainSize) }
    released.removeAll(keepingCapacity: true)
    room?.allocator.flushed()
  }

  // MARK: What writing needs

  /// The entry as the primary table has it; one that cannot be true is not written over.
  private func entryForWriting(at offset: UInt64) throws(EngineError) -> VMDKGrainEntry {
    guard let table = unsafe try tables.table(at: offset, copy: 0) else { return .none }
    let entry = unsafe table.entry(geometry.entryIndex(offset))
    if entry.isStored { try tables.fileEnd.require(entry.hostOffset, 1, "Grain") }
    guard entry != .zeros || geometry.hasZeroedGrains else {
      throw .corrupt("A grain lies in the header of the extent", at: offset)
    }
    return entry
  }

  /// Finds out where tables are and where there is room, before the first change.
  private func prepareToWrite() throws(EngineError) {
    guard room == nil else { return }
    let metadata = try VMDKMetadataMap(tables)
    if let overlap = metadata.overlap {
      throw .corrupt("Tables of the VMDK extent overlap at 0x\(hex(overlap))")
    }
    let end = max(try file.byteCount(), geometry.overhead, metadata.end).aligned(upTo: geometry.grainSize)
    room = Room(
      allocator: BlockAllocator(unit: geometry.grainSize, end: end), firstNew: end, metadata: metadata,
      freeSector: try recordedFreeSector())
  }

  private func recordedFreeSector() throws(EngineError) -> UInt32 {
    guard let field = geometry.freeSectorOffset else { return 0 }
    return try file.bytes(at: field, count: 4).parsed { (span) throws(EngineError) in
      try span.littleEndian(UInt32.self, at: 0)
    }
  }

  /// A grain or a table ends at a place of the file. Where the header says what the first free sector is, it is on disk
  /// before anything refers to the grain, so that no other writer puts something else there.
  private func noteEnd(_ hostOffset: UInt64) throws(EngineError) {
    guard let field = geometry.freeSectorOffset, let known = room?.freeSector else { return }
    let sector = UInt32(clamping: hostOffset.dividedRoundingUp(by: VMDKExtentLine.sectorByteCount))
    guard sector > known else { return }
    var bytes: [UInt8] = []
    bytes.append(littleEndian: sector)
    try file.write(bytes: bytes, at: field)
    room?.freeSector = sector
  }

  private static let notPrepared = EngineError.invalid("The extent is not being written")

  /// A new table in each directory, for extents whose tables were not all made in advance.
  private func addTable(_ index: UInt64) throws(EngineError) {
    // Grain tables begin with sectors, though small ones do not fill one.
    let step = geometry.tableByteCount.aligned(upTo: VMDKExtentLine.sectorByteCount)
    let byteCount = UInt64(tables.copyCount) * step
    guard let start = room?.allocator.reserveEnd(byteCount.aligned(upTo: geometry.grainSize)) else {
      throw Self.notPrepared
    }
    guard start + byteCount <= VMDKGrainGeometry.maximumFileByteCount else {
      throw EngineError(.tooLarge, "The VMDK extent has reached the largest size that its file can have")
    }
    try noteEnd(start + byteCount)
    let places = (0..<UInt64(tables.copyCount)).map { start + $0 * step }
    try tables.addTable(index, at: places)
    for place in places { room?.metadata.insert(place..<place + geometry.tableByteCount) }
  }
}
