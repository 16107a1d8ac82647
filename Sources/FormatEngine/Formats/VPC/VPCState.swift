/// Footer, header, table and bitmaps of a dynamic disk. Lives in its layer's lock.
struct VPCState {
  let file: any ByteStore
  var footer: VPCFooter
  var header: VPCDynamicHeader
  /// As they were when the image was opened.
  var copies: VPCFooterCopies
  /// First byte after all but the footer at the end.
  var contentEnd: UInt64
  /// The image ends with its footer, whole and sound.
  var hasSoundEnd: Bool
  var virtualSize: UInt64
  var geometry: VPCGeometry
  var metadata: VPCMetadataMap
  /// An entry a block: the sector where its room begins.
  var table: EntryTable<UInt32>
  let bitmaps: VPCBitmaps
  let order: WriteOrder
  let fileEnd: VPCFileEnd
  /// What lies below, of a differencing disk.
  let backing: BackingReference?
  /// Bytes of the file when it was opened, and of what it got since; what lies past them is damage.
  var knownEnd: UInt64
  /// From the first change on.
  var session: VPCSession?

  /// Memory for slices of the table: 2 MiB of it are those of 1 TiB of disk.
  static let tableCacheByteCount = 2 * MiB

  init(_ prologue: VPCPrologue, _ header: VPCDynamicHeader, _ file: any ByteStore, _ request: LayerRequest)
    throws(EngineError)
  {
    self.file = file
    footer = prologue.footer
    self.header = header
    copies = prologue.copies
    contentEnd = copies.contentEnd
    hasSoundEnd = copies.isWhole
    virtualSize = prologue.virtualSize
    geometry = VPCGeometry(blockSize: UInt64(header.blockSize), virtualSize: prologue.virtualSize)
    metadata = try VPCMetadataMap(prologue.footer, header, geometry, fileByteCount: copies.fileByteCount)
    knownEnd = prologue.copies.fileByteCount
    backing =
      prologue.footer.type == .differencing ? try VPCParentPaths(header, in: file).reference : nil
    order = WriteOrder(stores: [file], firstRankPoints: true)
    bitmaps = VPCBitmaps(in: file, order: order)
    fileEnd = VPCFileEnd(file, bitmaps)
    order.append(fileEnd)
    table = Self.table(header, geometry, file, order)
  }

  /// The table stands last in the order: it points to blocks, whose bitmaps and whose end of the file come first.
  static func table(
    _ header: VPCDynamicHeader, _ geometry: VPCGeometry, _ file: any ByteStore, _ order: WriteOrder
  ) -> EntryTable<UInt32> {
    EntryTable(
      in: file, at: header.tableOffset, count: geometry.blockCount, .bigEndian,
      cacheByteCount: tableCacheByteCount, writeOrder: order)
  }

  var isDifferencing: Bool { footer.type == .differencing }
}

// MARK: Looking up

extension VPCState {
  /// Entries that one look-up goes through at most: those of 128 GiB of disk.
  private static let maximumRun: UInt64 = 65536

  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    let first = geometry.blockIndex(offset)
    let inBlock = geometry.offsetInBlock(offset)
    guard let room = try room(ofBlock: first) else {
      return Extent(isDifferencing ? .below : .zeros, length: try emptyRun(from: first, inBlock, limit))
    }
    let inRoom = geometry.bitmapSize + inBlock
    guard room + inRoom < knownEnd else {
      throw .corrupt("Block \(first) reaches past the end of the image", at: offset)
    }
    let possible = min(limit, geometry.blockSize - inBlock, knownEnd - (room + inRoom))
    guard isDifferencing else { return Extent(.stored, length: possible, hostOffset: room + inRoom) }
    let sectors = VPCGeometry.sectors(of: inBlock..<inBlock + possible)
    let run = try bitmaps.run(at: room, from: sectors.lowerBound, to: sectors.upperBound)
    let runEnd = (sectors.lowerBound + run.count) * VPCGeometry.sectorSize
    let length = min(possible, runEnd - inBlock)
    return Extent(run.isSet ? .stored : .below, length: length, hostOffset: run.isSet ? room + inRoom : nil)
  }

  /// Guest bytes in blocks that are not there, from a place in block `first` on.
  private func emptyRun(from first: UInt64, _ inBlock: UInt64, _ limit: UInt64) throws(EngineError) -> UInt64
  {
    var length = geometry.blockSize - inBlock
    var index = first + 1
    while length < limit, index - first < Self.maximumRun, try table.entry(at: index) == VPCGeometry.unused {
      length += geometry.blockSize
      index += 1
    }
    return min(length, limit)
  }

  /// Where the room of a block begins, with its bitmap; nil where it has none.
  func room(ofBlock index: UInt64) throws(EngineError) -> UInt64? {
    let entry = try table.entry(at: index)
    guard entry != VPCGeometry.unused else { return nil }
    let room = VPCGeometry.roomOffset(entry)
    let guestOffset = index << geometry.blockBits
    guard room + geometry.bitmapSize < knownEnd else {
      throw .corrupt("Block \(index) lies past the end of the image", at: guestOffset)
    }
    if let other = metadata.overlapping(room..<room + geometry.roomSize) {
      throw .corrupt("Block \(index) lies over \(other)", at: guestOffset)
    }
    return room
  }
}
