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
  /// As it is before anything is mended: what pointed past it does so when the file has become longer.
  private let fileEnd: UInt64
  /// Which of the directories are in the file. Of the others nothing is believed, whatever lies there.
  private var hasDirectory: [Bool] = []
  /// Of each directory the entries that were written here. Others may name the same places.
  private var newEntries: [[Bool]] = []
  /// Whether something stays that points past the end of the file: a longer file would make it point to something.
  private var keepsPastEnd = false
  private var grains: VMDKGrainPlaces
  /// First byte behind all grains that begin in the file: found beforehand, where something may be mended.
  private var grainsEnd: UInt64 = 0
  /// Nil where tables overlap: then nobody can say what an entry is, and nothing is mended.
  private var metadata: VMDKMetadataMap?
  /// Where tables begin that stand in the room of grains, as entries say that nothing contradicts: their bytes may be a guest's.
  private var doubtfulTables: Set<UInt64> = []
  /// Those of them that only a redundant entry tells of.
  private var tablesInGrains: Set<UInt64> = []
  private(set) var report = CheckReport()

  /// Findings that are listed by words; more are only counted.
  private static let maximumFindings = 100_000

  init(_ geometry: VMDKGrainGeometry, file: any ByteStore, guestStart: UInt64, repairing: RepairMode?)
    throws(EngineError)
  {
    self.geometry = geometry
    self.file = file
    self.guestStart = guestStart
    self.repairing = repairing
    tables = try VMDKGrainTables(geometry, file: file, cacheByteCount: MiB)
    fileEnd = try file.byteCount()
    grains = VMDKGrainPlaces(geometry, fileEnd: fileEnd)
    for copy in 0..<tables.copyCount { hasDirectory.append(try tables.hasDirectory(copy)) }
    let entryCount = repairing == nil ? 0 : Int(geometry.directoryCount)
    newEntries = Array(repeating: Array(repeating: false, count: entryCount), count: tables.copyCount)
  }

  mutating func run(_ progress: Progress, total: UInt64) throws(EngineError) {
    checkDirectories()
    if repairing != nil { try lookAtTables(progress, total) }
    for index in 0..<geometry.directoryCount {
      try progress.step(min(guestStart + index << geometry.coverageBits, total), of: total)
      try checkTable(index)
    }
    for offset in grains.findOverlaps() { tellOverlap(offset) }
    for table in tablesInGrains.sorted() {
      corruption("ERROR: a grain lies in the grain table at 0x\(hex(table)), as the redundant tables say")
    }
    if repairing != nil { try tables.order.flush() }
    try checkEnd()
  }

  // MARK: Tables

  /// What has to be known of all tables before one is changed.
  private mutating func lookAtTables(_ progress: Progress, _ total: UInt64) throws(EngineError) {
    // Where a directory is missing, each of its entries is; there may be millions.
    guard hasDirectory.contains(true) else { return }
    for index in 0..<geometry.directoryCount {
      try progress.step(0, of: total)
      var copies: [[VMDKGrainEntry]] = []
      for copy in 0..<tables.copyCount { copies.append(try entries(index, copy: copy) ?? []) }
      if try keepsPastEnd(index, copies[0]) { keepsPastEnd = true }
      findDoubtfulTables(copies)
      for entry in copies.joined() where lies(entry) {
        grainsEnd = max(grainsEnd, entry.hostOffset + geometry.grainSize)
      }
    }
  }

  /// Whether a table, or a grain, lies past the end of the file, and is not what this repair mends.
  private func keepsPastEnd(_ index: UInt64, _ primary: [VMDKGrainEntry]) throws(EngineError) -> Bool {
    if repairing == .all {
      for copy in 0..<tables.copyCount {
        switch try place(ofTable: index, copy: copy) {
        case .none, .at: return false
        case .wrong, .unknown: break
        }
      }
      return true
    }
    if case .wrong = try place(ofTable: index, copy: 0) { return true }
    return primary.contains { $0.isStored && $0.hostOffset >= fileEnd }
  }

  private mutating func checkDirectories() {
    // Tables past the end of the file are found one by one.
    metadata = try? VMDKMetadataMap(tables, toleratingDamage: true)
    if let overlap = metadata?.overlap {
      metadata = nil
      corruption("ERROR: tables overlap at 0x\(hex(overlap))")
    }
  }

  /// Either the entry of a grain in a table is wrong, or that of the table. Where the other copy says where the grain is, it
  /// is the grain's.
  private mutating func findDoubtfulTables(_ copies: [[VMDKGrainEntry]]) {
    guard let metadata else { return }
    for (copy, entries) in copies.enumerated() {
      for (number, entry) in entries.enumerated() where entry.isStored {
        guard let region = metadata.firstRegion(in: room(of: entry)) else { continue }
        let others = copies.indices.filter { $0 != copy && number < copies[$0].count }
        let isContradicted = others.contains { other in
          let other = copies[other][number]
          return other.isStored && fault(of: other) == nil
        }
        guard !isContradicted else { continue }
        doubtfulTables.insert(region)
        let primary = number < copies[0].count ? copies[0][number] : .none
        if copy > 0, fault(of: primary) == nil, isTable(region) { tablesInGrains.insert(region) }
      }
    }
  }

  /// Whether a region is a table, and not the header or a directory.
  private func isTable(_ region: UInt64) -> Bool {
    region != 0 && region != geometry.directoryOffset && region != geometry.redundantDirectoryOffset
      && region != geometry.descriptor.lowerBound
  }

  private func room(of entry: VMDKGrainEntry) -> Range<UInt64> {
    let byteCount = geometry.isPacked ? VMDKExtentLine.sectorByteCount : geometry.grainSize
    return entry.hostOffset..<entry.hostOffset + byteCount
  }

  /// Whether the tables of an entry of the directories, in all copies, are tables and nothing else.
  private func mayChange(_ index: UInt64) -> Bool {
    guard repairing != nil, metadata != nil else { return false }
    return (0..<tables.copyCount).allSatisfy { copy in
      guard let place = (try? place(ofTable: index, copy: copy))?.offset else { return false }
      return !doubtfulTables.contains(place)
    }
  }

  private mutating func checkTable(_ index: UInt64) throws(EngineError) {
    let guest = index << geometry.coverageBits
    let primary = try entries(index, copy: 0)
    guard tables.copyCount > 1 else {
      if let primary { try checkGrains(primary, nil, index) } else { lost(guest) }
      return
    }
    let redundant = try entries(index, copy: 1)
    if repairing == nil { findDoubtfulTables([primary ?? [], redundant ?? []]) }
    // A primary directory is not made again: until all of it is there it would be in the way of the redundant one.
    let mayAdd = metadata != nil && doubtfulTables.isEmpty && !keepsPastEnd && hasDirectory[0]
    switch (primary, redundant) {
    case (nil, nil): lost(guest)
    case (nil, let redundant?):
      let isMended = repairing == .all && mayAdd
      if isMended { try addTable(index, redundant, copy: 0) }
      lost(guest, isFixed: isMended)
      if isMended { try checkGrains(redundant, redundant, index) }
    case (let primary?, let redundant)
    where redundant == nil || redundant?.isEmpty == true && !primary.isEmpty:
      let isMended = repairing != nil && mayAdd
      if isMended { try addTable(index, primary, copy: 1) }
      differs(guest, isFixed: isMended)
      try checkGrains(primary, isMended ? primary : nil, index)
    case (let primary?, let redundant?):
      guard primary.isEmpty == redundant.isEmpty else {
        // No writer takes a table away: this is what was lost, or was just being added.
        let isMended = repairing == .all && mayAdd
        if isMended { try addTable(index, redundant, copy: 0) }
        let sector = sector(guest)
        corruption(
          "ERROR: only the redundant grain directory has a table for sector \(sector)", isFixed: isMended)
        return isMended ? try checkGrains(redundant, redundant, index) : ()
      }
      try checkGrains(primary, redundant, index)
    case (.some, nil): break
    }
  }

  private func place(ofTable index: UInt64, copy: Int) throws(EngineError) -> VMDKGrainTables.TablePlace {
    let isNew = repairing != nil && newEntries[copy][Int(index)]
    guard hasDirectory[copy] || isNew else { return .unknown }
    return try tables.place(ofTable: index, copy: copy) { isNew || $0 <= fileEnd }
  }

  /// The entries of a table, empty where there is none; nil where it cannot be read. A repair ends where the file cannot be
  /// read: what fails today may be right tomorrow.
  private func entries(_ index: UInt64, copy: Int) throws(EngineError) -> [VMDKGrainEntry]? {
    do throws(EngineError) {
      let place: UInt64
      switch try self.place(ofTable: index, copy: copy) {
      case .none: return []
      case .wrong, .unknown: return nil
      case .at(let found): place = found
      }
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
      if repairing != nil, case .system = error.code { throw error }
      return nil
    }
  }

  /// A table with these entries, none where there are none.
  private mutating func addTable(_ index: UInt64, _ entries: [VMDKGrainEntry], copy: Int) throws(EngineError)
  {
    let directoryEnd = tables.directoryEnd(copy)
    if try file.byteCount() < directoryEnd { try file.resize(to: directoryEnd) }
    var place: UInt64 = 0
    if !entries.isEmpty {
      place = max(try file.byteCount(), metadata?.end ?? 0, grainsEnd).aligned(upTo: geometry.grainSize)
      guard place + geometry.tableByteCount <= VMDKGrainGeometry.maximumFileByteCount else {
        throw .unsupported("The VMDK extent has no room for another grain table")
      }
      var bytes: [UInt8] = []
      for entry in entries { bytes.append(littleEndian: entry.raw) }
      bytes.pad(toMultipleOf: Int(VMDKExtentLine.sectorByteCount))
      try file.write(bytes: bytes, at: place)
    }
    newEntries[copy][Int(index)] = true
    try tables.setDirectoryEntry(index, to: place, copy: copy)
  }

  // MARK: Grains

  private mutating func checkGrains(
    _ primary: [VMDKGrainEntry], _ redundant: [VMDKGrainEntry]?, _ index: UInt64
  ) throws(EngineError) {
    let guest = index << geometry.coverageBits
    let mayChange = mayChange(index)
    for (number, entry) in primary.enumerated() {
      let offset = guest + UInt64(number) << geometry.grainBits
      guard offset < geometry.byteCount else { return }
      let other = redundant?[number]
      if let words = fault(of: entry) {
        let good = other.flatMap { fault(of: $0) == nil && $0.isStored ? $0 : nil }
        // What lies in the file, and in a table: perhaps it is the table that is wrong there.
        let isMended = repairing == .all && mayChange && (good != nil || !lies(entry))
        if isMended { try set(good ?? .none, at: offset) }
        let sector = sector(offset)
        corruption("ERROR: cluster offset for sector \(sector) \(words)", isFixed: isMended)
        if isMended, let good { take(good, at: offset) }
        continue
      }
      take(entry, at: offset)
      if let other, other != entry {
        // Perhaps it is the primary table that lost something: a leak less is not worth what the other one still has.
        let isLast = entry == .none && other.isStored && fault(of: other) == nil
        let isMended = mayChange && (repairing == .all || !isLast)
        if isMended { try set(entry, at: offset) }
        differs(offset, isFixed: isMended, isLast ? "only the redundant grain table has an entry" : nil)
      }
    }
  }

  /// Whether there is something in the file where an entry points to.
  private func lies(_ entry: VMDKGrainEntry) -> Bool { entry.isStored && entry.hostOffset < fileEnd }

  /// Why an entry cannot be true, nil where it can.
  private func fault(of entry: VMDKGrainEntry) -> String? {
    if entry == .zeros && !geometry.hasZeroedGrains { return "points into the metadata" }
    guard entry.isStored else { return nil }
    guard entry.hostOffset < fileEnd else { return "points after EOF" }
    guard let metadata, metadata.firstRegion(in: room(of: entry)) != nil else { return nil }
    return "points into the metadata"
  }

  /// Notes that a grain is used. Packed ones lie anywhere.
  private mutating func take(_ entry: VMDKGrainEntry, at offset: UInt64) {
    guard entry.isStored, !geometry.isPacked else { return }
    if !grains.insert(entry.hostOffset, guestOffset: offset) { tellOverlap(offset) }
  }

  private mutating func tellOverlap(_ offset: UInt64) {
    let sector = sector(offset)
    corruption("ERROR: the grain for sector \(sector) is that of another sector, too")
  }

  /// A grain at an odd place may reach over what the next writer takes for the end of the file: a new grain would be part of it.
  private mutating func checkEnd() throws(EngineError) {
    guard grains.end > fileEnd.aligned(upTo: geometry.grainSize) else { return }
    let isMended = repairing == .all && report.corruptions == 0
    // A table that was added behind it has made the file long enough.
    if isMended, try file.byteCount() < grains.end {
      try file.resize(to: grains.end)
      try file.flush()
    }
    let end = hex(fileEnd)
    corruption("ERROR: the file ends at 0x\(end), inside of a grain", isFixed: isMended)
  }

  private func set(_ entry: VMDKGrainEntry, at offset: UInt64) throws(EngineError) {
    try tables.setEntries(at: offset, count: 1) { _ in entry }
  }

  // MARK: Findings

  private func sector(_ offset: UInt64) -> UInt64 { (guestStart + offset) / VMDKExtentLine.sectorByteCount }

  /// A table that cannot be read.
  private mutating func lost(_ guest: UInt64, isFixed: Bool = false) {
    let sector = sector(guest)
    corruption("ERROR: could not get cluster_offset for sector \(sector)", isFixed: isFixed)
  }

  /// Words are found only where they are kept: a table that is all wrong has millions of findings.
  private mutating func corruption(_ words: @autoclosure () -> String, isFixed: Bool = false) {
    note(isFixed ? "Repairing: \(words().dropFirst("ERROR: ".count))" : words())
    if isFixed { report.corruptionsFixed += 1 } else { report.corruptions += 1 }
  }

  private mutating func differs(_ offset: UInt64, isFixed: Bool, _ words: String? = nil) {
    let sector = sector(offset)
    let words = words ?? "the redundant grain tables differ"
    note("\(isFixed ? "Repairing" : "WARNING"): \(words) for sector \(sector)")
    if isFixed { report.leaksFixed += 1 } else { report.leaks += 1 }
  }

  private mutating func note(_ words: @autoclosure () -> String) {
    if report.findings.count < Self.maximumFindings { report.findings.append(words()) }
  }
}
