/// What the lock of a VHDX layer protects.
struct VHDXState {
  var image: VHDXImage
  let headers: VHDXHeaderWriter
  let pages: VHDXPages
  let log: VHDXLogWriter
  let order: WriteOrder
  var allocator: BlockAllocator
  /// Bytes of the file: everything that an entry points to lies before.
  var fileEnd: UInt64
  var isPreparedToWrite = false
  /// The data write GUID that the first change gives the image, where somebody wanted to know it before.
  var nextDataWriteGuid: VHDXGuid?
  /// Blocks that no entry points to any more once the next flush is done.
  var letGo: [UInt64] = []
  let file: any ByteStore
  let identities: IdentitySource

  init(_ image: VHDXImage, file: any ByteStore, _ identities: IdentitySource) throws(EngineError) {
    self.identities = identities
    self.image = image
    headers = VHDXHeaderWriter(image.header, slot: image.headerSlot, file: file)
    self.file = file
    pages = VHDXPages(file: file)
    // Each session that writes has another file write GUID to begin with.
    let guid = try VHDXGuid.new(identities, for: "log", after: image.header.fileWriteGuid)
    log = VHDXLogWriter(file: file, headers: headers, pages: pages, guid: guid)
    // Data, then the log, then what it has: with a flush before each.
    order = WriteOrder(stores: [file], firstRankPoints: true)
    order.append(log)
    order.append(VHDXPlacement(log: log, pages: pages))
    fileEnd = try file.byteCount()
    let regionsEnd = image.regions.entries.map(\.range.upperBound).max() ?? MiB
    guard fileEnd <= VHDXImage.maximumFileByteCount else {
      throw EngineError(.tooLarge, "The image file is too long")
    }
    let end = max(fileEnd, image.header.logRange.upperBound, regionsEnd <= fileEnd ? regionsEnd : fileEnd)
    allocator = BlockAllocator(unit: image.metadata.blockSize, end: end.aligned(upTo: MiB))
  }

  var geometry: VHDXGeometry { image.metadata.geometry }

  // MARK: The BAT

  func entryOffset(_ index: UInt64) -> UInt64 { image.bat.lowerBound + index * 8 }

  /// The entry of a block of the disk.
  func entry(ofBlock block: UInt64) throws(EngineError) -> VHDXEntry {
    VHDXEntry(raw: try pages.number(at: entryOffset(geometry.entryIndex(ofBlock: block))))
  }

  func setEntry(ofBlock block: UInt64, to entry: VHDXEntry) throws(EngineError) {
    try pages.setNumber(at: entryOffset(geometry.entryIndex(ofBlock: block)), to: entry.raw)
  }

  /// Where the sector bitmap of a block's chunk is, nil where there is none.
  func bitmapOffset(ofBlock block: UInt64) throws(EngineError) -> UInt64? {
    let index = geometry.bitmapEntryIndex(ofChunk: geometry.chunk(ofBlock: block))
    let entry = VHDXEntry(raw: try pages.number(at: entryOffset(index)))
    guard entry.state == .fullyPresent else { return nil }
    let start = entry.hostOffset
    guard start <= maximumFileOffset, start + MiB <= fileEnd, !image.isMetadata(start..<start + MiB) else {
      throw .corrupt("A VHDX sector bitmap does not lie in the file", at: geometry.start(ofBlock: block))
    }
    return start
  }

  // MARK: Extents

  /// Blocks that are looked at in one call; whoever wants more calls again.
  private static let maximumJoined = 16384

  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    var joined = try piece(at: offset, limit: limit)
    for _ in 0..<Self.maximumJoined {
      // What is wrong further on is for whoever reads it.
      guard joined.length < limit,
        let next = try? piece(at: offset + joined.length, limit: limit - joined.length),
        next.source == joined.source,
        next.hostOffset == joined.hostOffset.map({ $0 + joined.length })
      else { break }
      joined.length += next.length
    }
    return joined
  }

  /// The run of like bytes inside of one block.
  func piece(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    let geometry = geometry
    let block = geometry.block(offset)
    let length = min(limit, geometry.start(ofBlock: block) + geometry.byteCount(ofBlock: block) - offset)
    let entry = try entry(ofBlock: block)
    switch entry.state {
    case .notPresent: return Extent(.below, length: length)
    case .undefined, .zero, .unmapped, .draftUnmapped: return Extent(.zeros, length: length)
    case .fullyPresent: return try stored(entry, at: offset, length)
    case .partiallyPresent where geometry.hasParent:
      guard let bitmap = try bitmapOffset(ofBlock: block) else {
        throw .corrupt("A VHDX block is partially present and has no sector bitmap", at: offset)
      }
      let inSector = offset & (geometry.sectorSize - 1)
      let sectors = (inSector + length).dividedRoundingUp(by: geometry.sectorSize)
      let run = try pages.run(ofBitmapAt: bitmap, from: geometry.bit(offset), limit: sectors)
      let runLength = min(length, run.count << geometry.sectorBits - inSector)
      return run.isSet ? try stored(entry, at: offset, runLength) : Extent(.below, length: runLength)
    case .partiallyPresent: throw .corrupt("A VHDX block without a parent is partially present", at: offset)
    case nil: throw .corrupt("A VHDX block has the reserved state \(entry.raw & 7)", at: offset)
    }
  }

  private func stored(_ entry: VHDXEntry, at offset: UInt64, _ length: UInt64) throws(EngineError) -> Extent {
    let host = entry.hostOffset &+ geometry.offsetInBlock(offset)
    guard entry.hostOffset <= maximumFileOffset, host + length <= fileEnd else {
      throw .corrupt("A VHDX block lies past the end of the file", at: offset)
    }
    guard !image.isMetadata(host..<host + length) else {
      throw .corrupt("A VHDX block lies in the image's own metadata", at: offset)
    }
    return Extent(.stored, length: length, hostOffset: host)
  }
}
