/// An opened growing redolog. Sectors that were never written read as zeros.
final class BochsLayer: ImageLayer {
  let virtualSize: UInt64
  let clusterSize: UInt64 = 0
  let backing: BackingReference? = nil
  let storesHoles = false
  private let file: any ByteStore
  private let guestFile: any ByteStore
  private let geometry: BochsGeometry
  /// Protects the tables, never data I/O. After `RangeLock`.
  private let tables: Guarded<BochsTables>
  private static let extentsInRun: UInt64 = 1024

  init(_ file: any ByteStore, _ header: BochsHeader) throws(EngineError) {
    self.file = file
    guestFile = file.guestBytes
    virtualSize = header.virtualSize
    geometry = BochsGeometry(header)
    tables = Guarded(BochsTables(file, header, geometry, fileEnd: try file.byteCount()))
  }

  func store(_ index: UInt16) -> any ByteStore { guestFile }

  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    // A long hole comes in pieces: its bitmaps may be as large as the file.
    let limit = min(limit, Self.extentsInRun * geometry.extentSize)
    return try tables.withLock { (tables) throws(EngineError) in
      var run = try tables.run(at: offset, limit: limit)
      // Zeros go on over the borders of extents; stored bytes do not, a bitmap lies between them.
      while run.source == .zeros, run.length < limit, (offset + run.length) % geometry.extentSize == 0 {
        guard let next = try? tables.run(at: offset + run.length, limit: limit - run.length),
          next.source == .zeros
        else { break }
        run.length += next.length
      }
      return run
    }
  }

  func readCompressed(_ extent: Extent, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    throw .corrupt("A growing disk has no compressed data", at: offset)
  }
}

/// The catalog and the bitmaps, read on demand.
struct BochsTables: ~Copyable {
  private let geometry: BochsGeometry
  private let fileEnd: UInt64
  private let catalog: EntryTable<UInt32>
  /// Bitmaps in sectors of the file.
  private let bitmaps: TableCache

  private static let unallocated = UInt32.max

  init(_ file: any ByteStore, _ header: BochsHeader, _ geometry: BochsGeometry, fileEnd: UInt64) {
    self.geometry = geometry
    self.fileEnd = fileEnd
    catalog = EntryTable(
      in: file, at: UInt64(header.headerByteCount), count: UInt64(header.catalogCount), .littleEndian,
      writeOrder: nil)
    bitmaps = TableCache(
      store: file, order: nil, sliceByteCount: Int(BochsGeometry.sectorSize), capacity: 256 * KiB)
  }

  /// The run of like sectors from `offset` on, inside one extent.
  func run(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    let inExtent = offset & (geometry.extentSize - 1)
    let limit = min(limit, geometry.extentSize - inExtent)
    let entry = try catalog.entry(at: offset / geometry.extentSize)
    guard entry != Self.unallocated else { return Extent(.zeros, length: limit) }
    let bitmapOffset = geometry.bitmapOffset(of: entry)
    let dataOffset = bitmapOffset + geometry.bitmapSize
    guard dataOffset <= fileEnd else {
      throw .corrupt("Catalog entry \(entry) points past the end of the file", at: offset)
    }
    let sector = inExtent / BochsGeometry.sectorSize
    let end = (inExtent + limit).dividedRoundingUp(by: BochsGeometry.sectorSize)
    let isStored = try bits(from: sector, of: bitmapOffset) & 1 != 0
    let next = try firstSector(from: sector, to: end, thatIsStored: !isStored, of: bitmapOffset)
    let length = min(next * BochsGeometry.sectorSize - inExtent, limit)
    guard isStored else { return Extent(.zeros, length: length) }
    guard dataOffset + inExtent + length <= fileEnd else {
      throw .corrupt("Sectors of catalog entry \(entry) lie past the end of the file", at: offset)
    }
    return Extent(.stored, length: length, hostOffset: dataOffset + inExtent)
  }

  /// `end` where there is none.
  private func firstSector(
    from start: UInt64, to end: UInt64, thatIsStored isStored: Bool, of bitmapOffset: UInt64
  ) throws(EngineError) -> UInt64 {
    var sector = start
    while sector < end {
      let bits = try bits(from: sector, of: bitmapOffset)
      let found = isStored ? bits : ~bits & (.max >> (sector & 63))
      if found != 0 { return min(sector + UInt64(found.trailingZeroBitCount), end) }
      sector = (sector | 63) + 1
    }
    return end
  }

  /// Which sectors are stored, from `sector` to the next whose number is a multiple of 64: bit 0 of a byte stands for the first
  /// of its eight sectors.
  private func bits(from sector: UInt64, of bitmapOffset: UInt64) throws(EngineError) -> UInt64 {
    let byte = sector / 64 * 8
    let slice = unsafe try bitmaps.slice(at: bitmapOffset + byte.aligned(downTo: BochsGeometry.sectorSize))
    // SAFETY: a multiple of 8 below the slice's 512 bytes.
    let word = unsafe slice.loadUnaligned(
      fromByteOffset: Int(byte & (BochsGeometry.sectorSize - 1)), as: UInt64.self)
    return UInt64(littleEndian: word) >> (sector & 63)
  }
}
