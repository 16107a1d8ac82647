/// Bitmaps as parts of a change of the whole image.
extension Qcow2Rewrite {
  /// Puts the bitmaps of an editor in the place of `old`.
  func storeBitmaps(_ entries: [BitmapEditor.Entry], replacing old: Qcow2BitmapDirectory)
    throws(EngineError)
  {
    var bitmaps: [Qcow2Bitmap] = []
    var kept: Set<Int> = []
    for entry in entries {
      guard let index = entry.storedIndex else {
        bitmaps.append(try makeBitmap(entry))
        continue
      }
      kept.insert(index)
      var bitmap = old.bitmaps[index]
      if entry.changesBits || entry.record.isEnabled != bitmap.flags.contains(.auto) {
        try bitmap.requireKnownContent()
      }
      bitmap.setEnabled(entry.record.isEnabled)
      if entry.changesBits { try add(entry.added, to: &bitmap, keepingBits: entry.keepsStoredBits) }
      bitmaps.append(bitmap)
    }
    for index in old.bitmaps.indices where !kept.contains(index) { try free(old.bitmaps[index]) }
    try writeDirectory(bitmaps, replacing: old)
  }

  /// Stores what was recorded: the bitmaps are no longer in use.
  func storeBits(of recorder: Qcow2BitmapRecorder, in old: Qcow2BitmapDirectory) throws(EngineError) {
    var bitmaps = old.bitmaps
    for index in bitmaps.indices where recorder.covers(bitmaps[index]) {
      bitmaps[index].flags.remove(.inUse)
      let added = try recorder.bits(granularityBits: bitmaps[index].granularityBits)
      if !added.isEmpty { try add(added, to: &bitmaps[index], keepingBits: true) }
    }
    try writeDirectory(bitmaps, replacing: old)
  }

  /// Fits the bitmaps to a disk of another size: bits beyond it go, bytes that it gains are not dirty.
  func resizeBitmaps(from oldSize: UInt64, to newSize: UInt64) throws(EngineError) {
    var old = prologue
    old.header.virtualSize = oldSize
    let list = try Qcow2BitmapDirectory.read(old, from: file)
    guard !list.bitmaps.isEmpty else { return }
    try list.requireResizable(to: newSize)
    var bitmaps = list.bitmaps
    for index in bitmaps.indices { try resize(&bitmaps[index], to: newSize) }
    try writeDirectory(bitmaps, replacing: list)
  }

  // MARK: One bitmap

  private func makeBitmap(_ entry: BitmapEditor.Entry) throws(EngineError) -> Qcow2Bitmap {
    let bits = entry.added.granularityBits
    let count = Qcow2Bitmap.tableCount(prologue.header.virtualSize, granularityBits: bits, geometry)
    var table = Qcow2BitmapTable(count: count)
    try merge(entry.added, into: &table)
    var bitmap = Qcow2Bitmap(
      tableOffset: try allocate(bytes: table.serialised()), tableCount: UInt32(count), flags: [],
      granularityBits: bits, nameBytes: entry.record.name.hostBytes)
    bitmap.setEnabled(entry.record.isEnabled)
    return bitmap
  }

  private func add(_ added: DirtyBits, to bitmap: inout Qcow2Bitmap, keepingBits: Bool) throws(EngineError) {
    var table = try Qcow2BitmapTable(bitmap, geometry, from: file)
    if !keepingBits {
      for index in table.entries.indices { try freePart(table.part(index)) }
      table = Qcow2BitmapTable(count: UInt64(bitmap.tableCount))
    }
    try merge(added, into: &table)
    try move(&bitmap, to: table)
  }

  private func merge(_ added: DirtyBits, into table: inout Qcow2BitmapTable) throws(EngineError) {
    let bitsInPart = geometry.clusterSize * 8
    for part in added.parts(of: bitsInPart) where table.part(Int(part)) != .ones {
      if added.isFull(part: part, of: bitsInPart) {
        try freePart(table.part(Int(part)))
        table.set(Int(part), to: .ones)
        continue
      }
      var bytes = try table.bytes(Int(part), geometry, from: file)
      added.merge(into: &bytes, from: part * bitsInPart)
      try replace(Int(part), of: &table, with: bytes)
    }
  }

  private func resize(_ bitmap: inout Qcow2Bitmap, to virtualSize: UInt64) throws(EngineError) {
    let byteCount = Qcow2Bitmap.byteCount(virtualSize, granularityBits: bitmap.granularityBits)
    var table = try Qcow2BitmapTable(bitmap, geometry, from: file)
    let count = Int(byteCount.dividedRoundingUp(by: geometry.clusterSize))
    for index in table.entries.indices.dropFirst(count) { try freePart(table.part(index)) }
    table.entries.removeLast(max(table.entries.count - count, 0))
    table.entries += [UInt64](repeating: 0, count: count - table.entries.count)
    try clearTail(of: &table, bitCount: virtualSize.dividedRoundingUp(by: 1 << bitmap.granularityBits))
    try move(&bitmap, to: table)
  }

  /// Bits of the last part that stand for nothing must be zero.
  private func clearTail(of table: inout Qcow2BitmapTable, bitCount: UInt64) throws(EngineError) {
    let last = table.entries.count - 1
    let used = bitCount - UInt64(last) * geometry.clusterSize * 8
    guard table.part(last) != .zeros, used < geometry.clusterSize * 8 else { return }
    var bytes = try table.bytes(last, geometry, from: file)
    let firstUnused = Int(used / 8)
    bytes[firstUnused] &= UInt8((1 << (used % 8)) - 1)
    for index in bytes.indices[(firstUnused + 1)...] { bytes[index] = 0 }
    try replace(last, of: &table, with: bytes)
  }

  /// Writes a part to a new place, where it needs one.
  private func replace(_ index: Int, of table: inout Qcow2BitmapTable, with bytes: [UInt8])
    throws(EngineError)
  {
    let old = table.part(index)
    if bytes.allSatisfy({ $0 == 0 }) {
      table.set(index, to: .zeros)
    } else if bytes.allSatisfy({ $0 == 0xff }) {
      table.set(index, to: .ones)
    } else {
      table.set(index, to: .stored(try allocate(bytes: bytes)))
    }
    try freePart(old)
  }

  /// Writes a table to a new place and lets go of the bitmap's old one.
  private func move(_ bitmap: inout Qcow2Bitmap, to table: Qcow2BitmapTable) throws(EngineError) {
    try free(at: bitmap.tableOffset, byteCount: UInt64(bitmap.tableCount) * 8)
    bitmap.tableOffset = try allocate(bytes: table.serialised())
    bitmap.tableCount = UInt32(table.entries.count)
  }

  // MARK: The list

  private func writeDirectory(_ bitmaps: [Qcow2Bitmap], replacing old: Qcow2BitmapDirectory)
    throws(EngineError)
  {
    try free(at: old.place.lowerBound, byteCount: old.place.upperBound - old.place.lowerBound)
    let bytes = Qcow2BitmapDirectory(bitmaps: bitmaps).serialised()
    guard UInt64(bytes.count) <= Qcow2BitmapLimits.directoryByteCount else {
      throw EngineError(.tooLarge, "Not enough space in the bitmap directory")
    }
    guard !bitmaps.isEmpty else {
      prologue.extensions.set(Qcow2HeaderExtensions.Kind.bitmaps, nil)
      prologue.header.autoclearFeatures.remove(.bitmaps)
      return
    }
    let found = Qcow2BitmapsExtension(
      count: UInt32(bitmaps.count), directoryByteCount: UInt64(bytes.count),
      directoryOffset: try allocate(bytes: bytes))
    prologue.extensions.set(Qcow2HeaderExtensions.Kind.bitmaps, found.serialised())
    prologue.header.autoclearFeatures.insert(.bitmaps)
  }

  // MARK: Giving back

  private func free(_ bitmap: Qcow2Bitmap) throws(EngineError) {
    do throws(EngineError) {
      let table = try Qcow2BitmapTable(bitmap, geometry, from: file)
      for index in table.entries.indices { try freePart(table.part(index)) }
    } catch {
      // Clusters of a damaged table are leaked: an inconsistent bitmap can always be removed.
      guard error.code == .corrupt else { throw error }
    }
    try free(at: bitmap.tableOffset, byteCount: UInt64(bitmap.tableCount) * 8)
  }

  private func freePart(_ part: Qcow2BitmapTable.Part) throws(EngineError) {
    if case .stored(let offset) = part { try free(at: offset, byteCount: geometry.clusterSize) }
  }

  /// Gives back what is counted; what a damaged image does not count stays as it is.
  private func free(at offset: UInt64, byteCount: UInt64) throws(EngineError) {
    for cluster in Qcow2State.clusters(offset, byteCount, geometry) where try count(of: cluster) > 0 {
      try remove(cluster..<cluster + 1)
    }
  }
}

extension Qcow2Bitmap {
  fileprivate mutating func setEnabled(_ isEnabled: Bool) {
    if isEnabled { flags.insert(.auto) } else { flags.remove(.auto) }
  }
}
