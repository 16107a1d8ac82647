/// Checks one sparse extent: that tables and grains are where they can be, each grain only once, and that the redundant
/// tables say the same as the primary ones.
///
/// A redundant entry that differs costs no data, and a power cut may leave one: it counts as a leak. The primary
/// entry goes before it, unless that cannot be true.
struct VMDKSparseChecker {
  private let geometry: VMDKGrainGeometry
  private let file: any ByteStore
  private let tables: VMDKGrainTables
  /// Of the extent's first byte on the disk.
  private let guestStart: UInt64
  private let repairing: RepairMode?
  private let fileEnd: UInt64
  /// A bit for each piece of the file of a grain's size: some grain begins there.
  private var taken: [UInt64]
  /// Nil where tables overlap.
  private var metadata: VMDKMetadataMap?
  private(set) var report = CheckReport()

  /// Findings that are listed by words; more are only counted.
  private static let maximumFindings = 100_000
  /// 64 MiB of bits: 32 TiB at 64 KiB grains, more than entries can address.
  private static let maximumTakenWords: UInt64 = 8 * MiB

  init(_ geometry: VMDKGrainGeometry, file: any ByteStore, guestStart: UInt64, repairing: RepairMode?)
    throws(EngineError)
  {
    self.geometry = geometry
    self.file = file
    self.guestStart = guestStart
    self.repairing = repairing
    tables = try VMDKGrainTables(geometry, file: file, cacheByteCount: MiB)
    fileEnd = try file.byteCount()
    let words = (fileEnd >> geometry.grainBits) / 64 + 1
    taken = Array(repeating: 0, count: Int(min(words, Self.maximumTakenWords)))
  }

  mutating func run(_ progress: Progress, total: UInt64) throws(EngineError) {
    checkDirectories()
    for index in 0..<geometry.directoryCount {
      try progress.step(min(guestStart + index << geometry.coverageBits, total), of: total)
      try checkTable(index)
    }
    if repairing != nil { try tables.order.flush() }
  }

  // MARK: Tables

  private mutating func checkDirectories() {
    // Tables past the end of the file are found one by one.
    metadata = try? VMDKMetadataMap(tables)
    if let overlap = metadata?.overlap {
      metadata = nil
      corruption("ERROR: tables overlap at 0x\(hex(overlap))")
    }
  }

  private mutating func checkTable(_ index: UInt64) throws(EngineError) {
    let guest = index << geometry.coverageBits
    let primary = entries(index, copy: 0)
    guard tables.copyCount > 1 else {
      if let primary { try checkGrains(primary, nil, at: guest) } else { lost(guest) }
      return
    }
    let redundant = entries(index, copy: 1)
    switch (primary, redundant) {
    case (nil, nil): lost(guest)
    case (nil, let redundant?):
      let isMended = repairing == .all && !redundant.isEmpty
      if isMended { try addTable(index, redundant, copy: 0) }
      lost(guest, isFixed: isMended)
    case (let primary?, nil):
      differs(guest, isFixed: false)
      try checkGrains(primary, nil, at: guest)
    case (let primary?, let redundant?):
      guard primary.isEmpty == redundant.isEmpty else { return differs(guest, isFixed: false) }
      try checkGrains(primary, redundant, at: guest)
    }
  }

  /// The entries of a table, empty where there is none; nil where it cannot be read.
  private func entries(_ index: UInt64, copy: Int) -> [VMDKGrainEntry]? {
    do throws(EngineError) {
      guard let place = try tables.tableOffset(index, copy: copy) else { return [] }
      let bytes = try file.bytes(at: place, count: Int(geometry.tableByteCount))
      return try bytes.parsed { (span) throws(EngineError) in
        var result: [VMDKGrainEntry] = []
        result.reserveCapacity(1 << Int(geometry.tableBits))
        for number in 0..<1 << Int(geometry.tableBits) {
          result.append(VMDKGrainEntry(raw: try span.littleEndian(UInt32.self, at: 4 * number)))
        }
        return result
      }
    } catch {
      return nil
    }
  }

  private func addTable(_ index: UInt64, _ entries: [VMDKGrainEntry], copy: Int) throws(EngineError) {
    let place = max(try file.byteCount(), metadata?.end ?? 0).aligned(upTo: geometry.grainSize)
    var bytes: [UInt8] = []
    for entry in entries { bytes.append(littleEndian: entry.raw) }
    bytes.pad(toMultipleOf: Int(VMDKExtentLine.sectorByteCount))
    try file.write(bytes: bytes, at: place)
    try tables.setDirectoryEntry(index, to: place, copy: copy)
  }

  // MARK: Grains

  private mutating func checkGrains(
    _ primary: [VMDKGrainEntry], _ redundant: [VMDKGrainEntry]?, at guest: UInt64
  ) throws(EngineError) {
    for (number, entry) in primary.enumerated() {
      let offset = guest + UInt64(number) << geometry.grainBits
      guard offset < geometry.byteCount else { return }
      let other = redundant?[number]
      if let words = fault(of: entry) {
        let good = other.flatMap { fault(of: $0) == nil && $0.isStored ? $0 : nil }
        let isFixed = repairing == .all
        if isFixed { try set(good ?? .none, at: offset) }
        corruption("ERROR: cluster offset for sector \(sector(offset)) \(words)", isFixed: isFixed)
        if isFixed, let good { try take(good, at: offset) }
        continue
      }
      try take(entry, at: offset)
      if let other, other != entry {
        if repairing != nil { try set(entry, at: offset) }
        differs(offset, isFixed: repairing != nil)
      }
    }
  }

  /// Why an entry cannot be true, nil where it can.
  private func fault(of entry: VMDKGrainEntry) -> String? {
    if entry == .zeros && !geometry.hasZeroedGrains { return "points into the metadata" }
    guard entry.isStored else { return nil }
    guard entry.hostOffset < fileEnd else { return "points after EOF" }
    let byteCount = geometry.isPacked ? VMDKExtentLine.sectorByteCount : geometry.grainSize
    guard let metadata, (try? metadata.requireNone(at: entry.hostOffset, byteCount: byteCount)) == nil else {
      return nil
    }
    return "points into the metadata"
  }

  /// Notes that a grain is used. Packed ones lie anywhere.
  private mutating func take(_ entry: VMDKGrainEntry, at offset: UInt64) throws(EngineError) {
    guard entry.isStored, !geometry.isPacked else { return }
    let piece = entry.hostOffset >> geometry.grainBits
    guard piece / 64 < UInt64(taken.count), entry.hostOffset.isAligned(to: geometry.grainSize) else { return }
    let bit: UInt64 = 1 << (piece % 64)
    if taken[Int(piece / 64)] & bit != 0 {
      corruption("ERROR: the grain for sector \(sector(offset)) is that of another sector, too")
    }
    taken[Int(piece / 64)] |= bit
  }

  private func set(_ entry: VMDKGrainEntry, at offset: UInt64) throws(EngineError) {
    try tables.setEntries(at: offset, count: 1) { _ in entry }
  }

  // MARK: Findings

  private func sector(_ offset: UInt64) -> UInt64 { (guestStart + offset) / VMDKExtentLine.sectorByteCount }

  /// A table that cannot be read.
  private mutating func lost(_ guest: UInt64, isFixed: Bool = false) {
    corruption("ERROR: could not get cluster_offset for sector \(sector(guest))", isFixed: isFixed)
  }

  private mutating func corruption(_ words: String, isFixed: Bool = false) {
    note(isFixed ? "Repairing: \(words.dropFirst("ERROR: ".count))" : words)
    if isFixed { report.corruptionsFixed += 1 } else { report.corruptions += 1 }
  }

  private mutating func differs(_ offset: UInt64, isFixed: Bool) {
    note(
      "\(isFixed ? "Repairing" : "WARNING"): the redundant grain tables differ for sector \(sector(offset))")
    if isFixed { report.leaksFixed += 1 } else { report.leaks += 1 }
  }

  private mutating func note(_ words: String) {
    if report.findings.count < Self.maximumFindings { report.findings.append(words) }
  }
}
