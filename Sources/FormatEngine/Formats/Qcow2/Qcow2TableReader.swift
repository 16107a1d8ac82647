/// Reads L2 tables one after the other, each with one read, and says to which host clusters their entries
/// refer. It holds one table; what it is asked about is the table that was read last.
///
/// It sees the file only, so nothing may wait to be written. Images with a data file count nothing for their
/// guest clusters and are not for it.
struct Qcow2TableReader {
  private let geometry: Qcow2Geometry
  private let version: UInt32
  private let file: any ByteStore
  /// Clusters that the file has, one that is cut off included.
  private let clusterCount: UInt64
  private let table: AlignedBuffer

  init(_ header: Qcow2Header, file: any ByteStore) throws(EngineError) {
    geometry = header.geometry
    version = header.version
    self.file = file
    clusterCount = try file.byteCount().dividedRoundingUp(by: geometry.clusterSize)
    table = AlignedBuffer(byteCount: Int(geometry.clusterSize))
  }

  /// The cluster of the L2 table that an L1 entry names, nil where it names none.
  func cluster(of entry: Qcow2L1Entry) throws(EngineError) -> UInt64? {
    guard entry.tableOffset != 0 else { return nil }
    guard entry.tableOffset.isAligned(to: geometry.clusterSize) else {
      throw .corrupt("L2 table offset 0x\(hex(entry.tableOffset)) unaligned", at: entry.tableOffset)
    }
    let cluster = entry.tableOffset >> geometry.clusterBits
    guard cluster < clusterCount else {
      throw .corrupt(
        "L2 table at 0x\(hex(entry.tableOffset)) lies past the end of the image file", at: entry.tableOffset)
    }
    return cluster
  }

  func read(_ cluster: UInt64) throws(EngineError) {
    unsafe try file.read(into: table.bytes, at: cluster << geometry.clusterBits)
  }

  /// Writes the table, as it was changed, to another cluster.
  func write(to cluster: UInt64) throws(EngineError) {
    unsafe try file.write(UnsafeRawBufferPointer(table.bytes), at: cluster << geometry.clusterBits)
  }

  var entryCount: Int { Int(geometry.l2Count) }

  /// `index` must be below `entryCount`. Bitmaps of extended entries are left alone.
  subscript(_ index: Int) -> Qcow2L2Entry {
    get {
      // SAFETY: the buffer holds `entryCount` entries of 8 or 16 bytes, the first 8 of which are this word.
      let raw = unsafe table.bytes.load(
        fromByteOffset: index * Int(geometry.entryByteCount), as: UInt64.self)
      return Qcow2L2Entry(UInt64(bigEndian: raw))
    }
    nonmutating set {
      // SAFETY: as above.
      unsafe table.bytes.storeBytes(
        of: newValue.raw.bigEndian, toByteOffset: index * Int(geometry.entryByteCount), as: UInt64.self)
    }
  }

  /// Host clusters of which an entry counts one reference each; empty where it has no room.
  func clusters(of entry: Qcow2L2Entry) throws(EngineError) -> Range<UInt64> {
    let run: Range<UInt64>
    if entry.isCompressed {
      let packed = entry.packed(geometry)
      // 62 bits at most, so neither sum overflows.
      let last = packed.hostOffset + packed.byteCount - 1
      run = packed.hostOffset >> geometry.clusterBits..<(last >> geometry.clusterBits) + 1
      // Readers take the last sector whole, though the file may end in it.
      guard run.lowerBound < clusterCount else { throw pastEnd("Compressed cluster", packed.hostOffset) }
    } else {
      guard entry.hostOffset != 0 else { return 0..<0 }
      guard entry.hostOffset.isAligned(to: geometry.clusterSize) else {
        throw .corrupt(
          "Cluster allocation offset 0x\(hex(entry.hostOffset)) unaligned", at: entry.hostOffset)
      }
      let cluster = entry.hostOffset >> geometry.clusterBits
      run = cluster..<cluster + 1
      guard cluster < clusterCount else { throw pastEnd("Cluster", entry.hostOffset) }
    }
    return run
  }

  private func pastEnd(_ what: String, _ hostOffset: UInt64) -> EngineError {
    .corrupt("\(what) at 0x\(hex(hostOffset)) lies past the end of the image file", at: hostOffset)
  }

  /// Calls `body` with all that the table's entries refer to, clusters that lie side by side in one run. A
  /// cluster to which several entries refer comes once for each.
  func forEachRun(_ body: (Range<UInt64>) throws(EngineError) -> Void) throws(EngineError) {
    var run: Range<UInt64> = 0..<0
    for index in 0..<entryCount {
      let entry = self[index]
      if entry.raw == 0 { continue }
      let clusters = try clusters(of: entry)
      if clusters.isEmpty { continue }
      if clusters.lowerBound == run.upperBound {
        run = run.lowerBound..<clusters.upperBound
      } else {
        if !run.isEmpty { try body(run) }
        run = clusters
      }
    }
    if !run.isEmpty { try body(run) }
  }
}
