import Synchronization

extension Qcow2Checker {
  /// The copied flag of every active entry says whether the counted references are exactly one.
  mutating func checkCopiedFlags() throws(EngineError) {
    let l1 = try ResidentTable(store: file, hostOffset: header.l1Offset, count: Int(header.l1Count))
    let size = geometry.clusterSize
    let buffer = AlignedBuffer(byteCount: Int(size))
    var stored = Qcow2RefcountReader(refcounts)
    for index in 0..<UInt64(l1.count) {
      let entry = Qcow2L1Entry(l1[index])
      guard entry.tableOffset != 0, entry.tableOffset.isAligned(to: size) else { continue }
      let count = stored.count(of: entry.tableOffset >> geometry.clusterBits)
      if (count == 1) != entry.isCopied {
        corruption(
          "ERROR OFLAG_COPIED L2 cluster: l1_index=\(index) l1_entry=\(hex(entry.raw)) refcount=\(count)")
      }
      guard entry.tableOffset >> geometry.clusterBits < counts.clusterCount else { continue }
      unsafe try file.read(into: buffer.bytes, at: entry.tableOffset)
      checkCopiedFlags(inTable: buffer, &stored)
    }
  }

  private mutating func checkCopiedFlags(inTable buffer: AlignedBuffer, _ stored: inout Qcow2RefcountReader) {
    guard !header.incompatibleFeatures.contains(.externalDataFile) else { return }
    for position in stride(from: 0, to: buffer.byteCount, by: Int(geometry.entryByteCount)) {
      // SAFETY: a whole number of entries fills the buffer.
      let raw = UInt64(bigEndian: unsafe buffer.bytes.load(fromByteOffset: position, as: UInt64.self))
      guard raw != 0 else { continue }
      let entry = Qcow2L2Entry(raw)
      guard !entry.isCompressed, entry.hostOffset != 0, entry.hostOffset.isAligned(to: geometry.clusterSize)
      else {
        continue
      }
      let count = stored.count(of: entry.hostOffset >> geometry.clusterBits)
      if (count == 1) != entry.isCopied {
        corruption("ERROR OFLAG_COPIED data cluster: l2_entry=\(hex(raw)) refcount=\(count)")
      }
    }
  }

  /// Bitmaps: directory, tables and their clusters (qcow2.txt, "Bitmaps").
  mutating func walkBitmaps() throws(EngineError) {
    guard header.autoclearFeatures.contains(.bitmaps),
      let content = extensions[Qcow2HeaderExtensions.Kind.bitmaps]
    else { return }
    let (count, byteCount, offset) = try content.parsed { (span) throws(EngineError) in
      (
        try span.bigEndian(UInt32.self, at: 0), try span.bigEndian(UInt64.self, at: 8),
        try span.bigEndian(UInt64.self, at: 16)
      )
    }
    // 64 MiB of directory have room for 65535 bitmaps with names of 1023 bytes.
    guard byteCount <= 64 * MiB, offset.isAligned(to: geometry.clusterSize), offset < maximumFileOffset else {
      corruption("ERROR bitmap directory is damaged")
      return
    }
    countRange(offset, byteCount)
    let directory = try file.bytes(at: offset, count: Int(byteCount))
    var position = 0
    for _ in 0..<count where position + 24 <= directory.count {
      position += try walkBitmap(directory, at: position)
    }
  }

  /// Returns the length of the directory entry.
  private mutating func walkBitmap(_ directory: [UInt8], at position: Int) throws(EngineError) -> Int {
    let (table, entries, length) = try directory.parsed { (span) throws(EngineError) in
      let nameLength = Int(try span.bigEndian(UInt16.self, at: position + 18))
      let extraLength = Int(try span.bigEndian(UInt32.self, at: position + 20))
      return (
        try span.bigEndian(UInt64.self, at: position),
        UInt64(try span.bigEndian(UInt32.self, at: position + 8)),
        (24 + nameLength + extraLength + 7) & ~7
      )
    }
    guard table.isAligned(to: geometry.clusterSize), entries <= 64 * MiB / 8, table < maximumFileOffset else {
      corruption("ERROR bitmap table is damaged")
      return length
    }
    countRange(table, entries * 8)
    let values = try ResidentTable(store: file, hostOffset: table, count: Int(entries))
    for index in 0..<entries {
      let offset = values[index] & Qcow2L1Entry.offsetMask
      if offset != 0 { countRange(offset, geometry.clusterSize) }
    }
    return length
  }

  /// The clusters of an encryption header, whose place an extension names.
  mutating func countEncryptionHeader() {
    guard header.encryptionMethod == 2, let content = extensions[Qcow2HeaderExtensions.Kind.encryption],
      let place = try? content.parsed({ (span) throws(EngineError) in
        (try span.bigEndian(UInt64.self, at: 0), try span.bigEndian(UInt64.self, at: 8))
      })
    else { return }
    countRange(place.0, place.1)
  }
}

extension Qcow2Layer: Checkable {
  func check(progress: Progress) throws(EngineError) -> CheckReport {
    let prologue = state.withLock { $0.currentPrologue }
    var checker = try Qcow2Checker(prologue, file: file, progress: progress)
    return try checker.run()
  }
}
