/// The two-level table from guest clusters to host clusters, of the disk or of one snapshot.
/// Lives in its layer's lock.
final class Qcow2Mapping {
  let geometry: Qcow2Geometry
  let l1: ResidentTable
  let l2: TableCache
  private let version: UInt32
  private let file: any ByteStore
  private let hasDataFile: Bool
  private let isEncrypted: Bool
  /// Size of the image file when it was last asked for; clusters that start past it are damage.
  private var fileEnd: UInt64

  /// `cacheByteCount`: L2 tables that are held at once.
  init(
    _ header: Qcow2Header, l1: ResidentTable, file: any ByteStore, order: WriteOrder?, cacheByteCount: UInt64
  ) throws(EngineError) {
    geometry = header.geometry
    version = header.version
    hasDataFile = header.incompatibleFeatures.contains(.externalDataFile)
    isEncrypted = header.encryptionMethod != 0
    self.l1 = l1
    self.file = file
    fileEnd = try file.byteCount()
    let wanted = UInt64(l1.count) * geometry.clusterSize
    l2 = TableCache(
      store: file, order: order, sliceByteCount: Int(min(geometry.clusterSize, 4096)),
      capacity: min(wanted, cacheByteCount))
  }

  /// The longest run of like bytes from `offset` on, at most `limit` and within one L2 table.
  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    let l1Index = geometry.l1Index(offset)
    guard let table = try tableOffset(l1Index) else {
      return Extent(.below, length: emptyRun(from: l1Index, offset, limit))
    }
    let end = min(offset + limit, (l1Index + 1) << geometry.l2CoverageBits)
    var run = try piece(at: offset, in: table)
    guard run.source != .compressed, run.length < end - offset else { return run.clamped(to: end - offset) }
    if geometry.hasSubclusters || hasDataFile {
      extend(&run, from: offset, to: end, in: table)
    } else {
      try extendByClusters(&run, from: offset, to: end, in: table)
    }
    return run.clamped(to: end - offset)
  }

  /// Adds the pieces behind a run that continue it. A damaged one ends the run; reading it is what fails.
  private func extend(_ run: inout Extent, from offset: UInt64, to end: UInt64, in table: UInt64) {
    while offset + run.length < end {
      guard let next = try? piece(at: offset + run.length, in: table), Self.continues(run, next) else {
        return
      }
      run.length += next.length
    }
  }

  /// The same for standard entries, slice by slice: like entries differ by the cluster size or not at all.
  private func extendByClusters(_ run: inout Extent, from offset: UInt64, to end: UInt64, in table: UInt64)
    throws(EngineError)
  {
    let mask = Qcow2L2Entry.offsetMask | Qcow2L2Entry.compressedBit | Qcow2L2Entry.zeroBit
    let step = run.hostOffset == nil ? 0 : geometry.clusterSize
    var expected = (run.hostOffset.map { $0 + run.length } ?? 0)
    if run.source == .zeros { expected |= Qcow2L2Entry.zeroBit }
    var position = offset + run.length
    scan: while position < end {
      let entryPosition = geometry.l2Index(position) * 8
      let first = Int(entryPosition) & (l2.sliceByteCount - 1)
      let slice = unsafe try l2.slice(at: table + (entryPosition - UInt64(first)))
      for index in stride(from: first, to: l2.sliceByteCount, by: 8) {
        // SAFETY: `index` is the place of a whole entry in the slice.
        let raw = UInt64(bigEndian: unsafe slice.load(fromByteOffset: index, as: UInt64.self))
        guard raw & mask == expected else { break scan }
        expected += step
        position += geometry.clusterSize
        if position >= end { break }
      }
    }
    run.length = position - offset
    if run.source == .stored { try clampToFile(&run) }
  }

  /// A run of stored clusters ends where they start past the end of the file; its first cluster does not.
  private func clampToFile(_ run: inout Extent) throws(EngineError) {
    guard let host = run.hostOffset, host + run.length > fileEnd else { return }
    fileEnd = max(fileEnd, try file.byteCount())
    run.length = min(run.length, fileEnd.aligned(upTo: geometry.clusterSize) - host)
  }

  /// The L2 entry for a guest offset; nothing where there is no table.
  func entry(at offset: UInt64) throws(EngineError) -> Qcow2L2Entry {
    guard let table = try tableOffset(geometry.l1Index(offset)) else { return Qcow2L2Entry(0) }
    return try entry(at: offset, in: table)
  }

  /// Host offset of the L2 table for an L1 entry.
  func tableOffset(_ l1Index: UInt64) throws(EngineError) -> UInt64? {
    let offset = Qcow2L1Entry(l1[l1Index]).tableOffset
    guard offset != 0 else { return nil }
    guard offset.isAligned(to: geometry.clusterSize) else {
      throw .corrupt("L2 table offset 0x\(hex(offset)) unaligned (L1 index: 0x\(hex(l1Index)))", at: offset)
    }
    try requireInsideFile(offset, "L2 table")
    return offset
  }

  /// The entry for a guest offset in the L2 table at `table`.
  func entry(at offset: UInt64, in table: UInt64) throws(EngineError) -> Qcow2L2Entry {
    let position = geometry.l2Index(offset) * geometry.entryByteCount
    let inSlice = Int(position) & (l2.sliceByteCount - 1)
    let slice = unsafe try l2.slice(at: table + (position - UInt64(inSlice)))
    // SAFETY: entries do not straddle slices, and the slice is a whole number of them.
    let raw = UInt64(bigEndian: unsafe slice.load(fromByteOffset: inSlice, as: UInt64.self))
    guard geometry.hasSubclusters else { return Qcow2L2Entry(raw) }
    let bitmap = UInt64(bigEndian: unsafe slice.load(fromByteOffset: inSlice + 8, as: UInt64.self))
    return Qcow2L2Entry(raw, bitmap: bitmap)
  }

  /// Changes the entry for a guest offset in the L2 table at `table`.
  func setEntry(at offset: UInt64, in table: UInt64, to entry: Qcow2L2Entry) throws(EngineError) {
    let position = geometry.l2Index(offset) * geometry.entryByteCount
    let inSlice = Int(position) & (l2.sliceByteCount - 1)
    let sliceOffset = table + (position - UInt64(inSlice))
    let slice = unsafe try l2.slice(at: sliceOffset)
    // SAFETY: as in `entry(at:in:)`.
    unsafe slice.storeBytes(of: entry.raw.bigEndian, toByteOffset: inSlice, as: UInt64.self)
    if geometry.hasSubclusters {
      unsafe slice.storeBytes(of: entry.bitmap.bigEndian, toByteOffset: inSlice + 8, as: UInt64.self)
    }
    l2.markDirty(at: sliceOffset)
  }

  /// What one entry says of the bytes from `offset` to the end of its cluster, or for extended entries to
  /// the end of its like subclusters.
  private func piece(at offset: UInt64, in table: UInt64) throws(EngineError) -> Extent {
    let entry = try entry(at: offset, in: table)
    let inCluster = geometry.offsetInCluster(offset)
    let length = geometry.clusterSize - inCluster
    if entry.isCompressed {
      guard !hasDataFile else {
        throw .corrupt("Compressed cluster entry found in image with external data file", at: offset)
      }
      let packed = entry.packed(geometry)
      try requireInsideFile(packed.hostOffset, "Compressed cluster")
      return Extent(.compressed, length: length, hostOffset: packed.hostOffset)
    }
    let host = entry.hostOffset
    guard host.isAligned(to: geometry.clusterSize) else {
      throw .corrupt(
        "Cluster allocation offset 0x\(hex(host)) unaligned (guest offset: 0x\(hex(offset)))", at: offset)
    }
    if geometry.hasSubclusters { return try subclusters(entry, at: inCluster) }
    let hasHost = host != 0 || (hasDataFile && entry.isCopied)
    if entry.isZero {
      guard version >= 3 else { throw .corrupt("Zero cluster entry found in pre-v3 image", at: offset) }
      return Extent(
        .zeros, length: length, hostOffset: hasHost ? host + inCluster : nil, store: dataStore,
        isEncrypted: isEncrypted)
    }
    guard hasHost else { return Extent(.below, length: length) }
    return try stored(host + inCluster, length: length)
  }

  private func subclusters(_ entry: Qcow2L2Entry, at inCluster: UInt64) throws(EngineError) -> Extent {
    let first = inCluster / geometry.subclusterSize
    let stored = entry.bitmap & 0xffff_ffff
    let zeros = entry.bitmap >> 32
    guard stored & zeros == 0 else { throw .corrupt("Subclusters are marked as stored and as zeros") }
    func kind(_ index: UInt64) -> UInt64 { (stored >> index & 1) | (zeros >> index & 1) << 1 }
    var end = first + 1
    while end < Qcow2Geometry.subclusterCount, kind(end) == kind(first) { end += 1 }
    let length = end * geometry.subclusterSize - inCluster
    let hasHost = entry.hostOffset != 0 || (hasDataFile && entry.isCopied)
    let host = hasHost ? entry.hostOffset + inCluster : nil
    switch kind(first) {
    case 0:
      return Extent(.below, length: length, hostOffset: host, store: dataStore, isEncrypted: isEncrypted)
    case 1:
      guard hasHost else { throw .corrupt("Subclusters are stored without a cluster") }
      return try self.stored(entry.hostOffset + inCluster, length: length)
    default:
      return Extent(.zeros, length: length, hostOffset: host, store: dataStore, isEncrypted: isEncrypted)
    }
  }

  private var dataStore: UInt16 { hasDataFile ? 1 : 0 }

  private func stored(_ hostOffset: UInt64, length: UInt64) throws(EngineError) -> Extent {
    if !hasDataFile { try requireInsideFile(hostOffset.aligned(downTo: geometry.clusterSize), "Cluster") }
    return Extent(
      .stored, length: length, hostOffset: hostOffset, store: dataStore, isEncrypted: isEncrypted)
  }

  private static func continues(_ run: Extent, _ next: Extent) -> Bool {
    guard run.source == next.source, run.source != .compressed else { return false }
    switch (run.hostOffset, next.hostOffset) {
    case (nil, nil): return true
    case (let host?, let nextHost?): return host + run.length == nextHost
    default: return false
    }
  }

  /// Bytes from `offset` on that no L2 table describes.
  private func emptyRun(from l1Index: UInt64, _ offset: UInt64, _ limit: UInt64) -> UInt64 {
    let end = offset + limit
    var next = l1Index + 1
    while next << geometry.l2CoverageBits < end, Qcow2L1Entry(l1[next]).tableOffset == 0 {
      // A snapshot may claim a disk far larger than its table describes: there is nothing more to ask.
      guard next < UInt64(l1.count) else { return limit }
      next += 1
    }
    return min(end, next << geometry.l2CoverageBits) - offset
  }

  /// Room up to `hostEnd` is in use, though not all of it may be in the file yet.
  func noteFileReaches(_ hostEnd: UInt64) { fileEnd = max(fileEnd, hostEnd) }

  /// What starts past the end of the file was never written, or was cut off.
  private func requireInsideFile(_ hostOffset: UInt64, _ what: String) throws(EngineError) {
    if hostOffset < fileEnd { return }
    fileEnd = max(fileEnd, try file.byteCount())
    guard hostOffset < fileEnd else {
      throw .corrupt("\(what) at 0x\(hex(hostOffset)) lies past the end of the image file", at: hostOffset)
    }
  }
}

/// `value` in lower-case hexadecimal digits, as messages show offsets.
func hex(_ value: UInt64) -> String { String(value, radix: 16) }
