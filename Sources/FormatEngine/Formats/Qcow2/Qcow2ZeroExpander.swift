/// Takes the zero clusters out of trees of tables, because version 2 has none: where nothing lies below, no
/// entry reads as zeros as well; else they become stored clusters full of zeros.
struct Qcow2ZeroExpander {
  private let rewrite: Qcow2Rewrite
  private let reader: Qcow2TableReader
  private let hasBacking: Bool
  private let cipher: LayerCipher?
  /// New places of tables that had zero clusters and that several L1 tables share, by their old ones.
  private var moved: [UInt64: UInt64] = [:]
  private let total: UInt64
  private var done: UInt64 = 0
  private let progress: Progress

  /// `total`: L1 entries of all trees, for the progress.
  init(_ rewrite: Qcow2Rewrite, _ cipher: LayerCipher?, total: UInt64, progress: Progress) throws(EngineError)
  {
    self.cipher = cipher
    self.rewrite = rewrite
    reader = try Qcow2TableReader(rewrite.prologue.header, file: rewrite.file)
    hasBacking = rewrite.prologue.backing != nil
    self.total = total
    self.progress = progress
  }

  /// Gives the tables that have zero clusters new places, and the entries of `l1` go there. The copied flags of
  /// `l1` itself are left to be set.
  mutating func expand(_ l1: inout Qcow2L1Table, isActive: Bool) throws(EngineError) {
    for index in 0..<l1.count {
      if let table = try reader.cluster(of: l1[index]) {
        let place = try expandedTable(table, at: index, isActive: isActive)
        if place != table { l1[index] = Qcow2L1Entry(place << rewrite.geometry.clusterBits) }
      }
      done += 1
      try progress.step(done, of: total)
    }
  }

  private mutating func expandedTable(_ table: UInt64, at l1Index: Int, isActive: Bool) throws(EngineError)
    -> UInt64
  {
    if let place = moved[table] {
      try addUser(of: place, insteadOf: table)
      return place
    }
    try reader.read(table)
    var zeroCount: UInt64 = 0
    var hasRoom = hasBacking
    for index in 0..<reader.entryCount where reader[index].isZeroCluster {
      zeroCount += 1
      hasRoom = hasRoom || reader[index].hostOffset != 0
    }
    guard zeroCount > 0 else { return table }
    if !hasRoom {
      // Without anything below, the entries say the same in both versions: that needs no other place.
      try expandEntries(zeroCount, at: l1Index, areCopied: false)
      try reader.write(to: table)
      return table
    }
    let isShared = try rewrite.count(of: table) > 1
    try expandEntries(zeroCount, at: l1Index, areCopied: isActive && !isShared)
    let place = try rewrite.allocate(clusters: 1) >> rewrite.geometry.clusterBits
    try reader.write(to: place)
    try rewrite.remove(table..<table + 1)
    if isShared { moved[table] = place }
    return place
  }

  /// Changes the zero clusters of the table that was read.
  private func expandEntries(_ zeroCount: UInt64, at l1Index: Int, areCopied: Bool) throws(EngineError) {
    let bits = rewrite.geometry.clusterBits
    var room: UInt64 = 0
    if hasBacking {
      room = try rewrite.allocate(clusters: zeroCount)
      try rewrite.file.writeZeros(at: room, count: zeroCount << bits, freeing: true)
    }
    for index in 0..<reader.entryCount {
      let entry = reader[index]
      guard entry.isZeroCluster else { continue }
      // Its room may be another's data that is shared, so it is not made use of.
      try rewrite.remove(try reader.clusters(of: entry))
      if hasBacking { try encryptZeros(at: room, cluster: UInt64(l1Index * reader.entryCount + index)) }
      reader[index] = Qcow2L2Entry(hasBacking ? room | (areCopied ? Qcow2L2Entry.copiedBit : 0) : 0)
      room += rewrite.geometry.clusterSize
    }
  }

  /// Makes room that is full of zeros one that reads as zeros, where there is a cipher.
  private func encryptZeros(at room: UInt64, cluster: UInt64) throws(EngineError) {
    guard let cipher else { return }
    let buffer = AlignedBuffer(byteCount: Int(rewrite.geometry.clusterSize))
    unsafe buffer.bytes.initializeMemory(as: UInt8.self, repeating: 0)
    unsafe try cipher.encrypt(
      UnsafeRawBufferPointer(buffer.bytes), into: buffer.bytes,
      guestOffset: cluster << rewrite.geometry.clusterBits, hostOffset: room)
    unsafe try rewrite.file.write(UnsafeRawBufferPointer(buffer.bytes), at: room)
  }

  /// Another L1 table uses `place` in the place of `table`.
  private func addUser(of place: UInt64, insteadOf table: UInt64) throws(EngineError) {
    try rewrite.add(place..<place + 1)
    try rewrite.remove(table..<table + 1)
    try reader.read(table)
    let new = try Qcow2TableReader(rewrite.prologue.header, file: rewrite.file)
    try new.read(place)
    for index in 0..<reader.entryCount where reader[index].isZeroCluster {
      try rewrite.remove(try reader.clusters(of: reader[index]))
      try rewrite.add(try new.clusters(of: new[index]))
    }
  }
}

extension Qcow2L2Entry {
  /// A cluster that reads as zeros by its mark, in a version 3 image without extended entries.
  fileprivate var isZeroCluster: Bool { !isCompressed && isZero }
}
