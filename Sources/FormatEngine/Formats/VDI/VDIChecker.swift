import Synchronization

/// What a walk over the whole block map found.
struct VDICheck {
  var report = CheckReport()
  /// Entries that lead to no room of the file.
  var lostCount: UInt64 = 0
  /// Entries that lead to a room which another has already.
  var sharedCount: UInt64 = 0
  /// Rooms of the file that entries lead to.
  var used = VDIRoomSet()
  /// First room after them.
  var end: UInt64 = 0
  private static let maximumFindings = 100_000

  /// Words and counts are qemu-img's for what it finds: entries out of range, rooms that are used twice, a wrong count.
  /// Beyond that: blocks past the end of the file, and blocks that other programs would write over.
  init(_ file: any ByteStore, _ header: VDIHeader, _ geometry: VDIGeometry, _ progress: Progress)
    throws(EngineError)
  {
    let roomCount = geometry.roomCount(inFileOf: try file.byteCount())
    var counted: UInt64 = 0
    try VDIMapScan(file, header).forEachRoom(progress: progress) { (block, room) throws(EngineError) in
      let isTooLarge = UInt64(room) >= geometry.blockCount
      if isTooLarge {
        corruption("ERROR: block index \(block) too large, is \(room)")
      } else {
        counted += 1
      }
      guard UInt64(room) < roomCount else {
        lostCount += 1
        if !isTooLarge {
          corruption("ERROR: block index \(block) lies past the end of the file, is \(room)")
        }
        return
      }
      guard used.insert(room) else {
        sharedCount += 1
        if !isTooLarge { corruption("ERROR: block index \(room) also used by \(room)") }
        return
      }
      if !isTooLarge { end = max(end, UInt64(room) + 1) }
    }
    let last = end
    if counted != UInt64(header.allocatedBlockCount) {
      corruption("ERROR: allocated blocks mismatch, is \(counted), should be \(header.allocatedBlockCount)")
    } else if last > counted {
      corruption(
        "ERROR: the last block is number \(last) of the file, where the header counts \(counted): the next block "
          + "would be written over one of them")
    }
  }

  private mutating func corruption(_ words: @autoclosure () -> String) {
    report.corruptions += 1
    if report.findings.count < Self.maximumFindings { report.findings.append(words()) }
  }
}

extension VDILayer: Checkable {
  func check(progress: Progress) throws(EngineError) -> CheckReport {
    let (header, geometry) = state.withLock { ($0.header, $0.geometry) }
    return try VDICheck(file, header, geometry, progress).report
  }
}

extension VDILayer: Repairable {
  func repair(_ mode: RepairMode, progress: Progress) throws(EngineError) -> CheckReport {
    try state.withLock { (state) throws(EngineError) in try state.repair(mode, progress) }
  }
}

extension VDIState {
  /// Mends what `check` finds. `leaks` stands for what loses nothing: holes are filled and blocks are counted.
  ///
  /// A block that shares its room with another one gets a copy: both read as before. Entries that lead nowhere become
  /// zeros; what they stood for cannot be read.
  fileprivate mutating func repair(_ mode: RepairMode, _ progress: Progress) throws(EngineError)
    -> CheckReport
  {
    let check = try VDICheck(file, header, geometry, progress)
    var report = check.report
    let isDamaged = check.lostCount + check.sharedCount > 0
    guard report.corruptions > 0, mode == .all || !isDamaged else { return report }
    if check.sharedCount > max(check.used.count, 16) {
      report.failure = CheckFailure(
        "Operation not supported",
        explanation: "More blocks share a room than the file has rooms: the block map as a whole is lost")
      return report
    }
    if isDamaged { try mendEntries(check) }
    session = try VDISession(file, header, geometry)
    try compact()
    session = nil
    (report.corruptionsFixed, report.corruptions) = (report.corruptions, 0)
    return report
  }

  private mutating func mendEntries(_ check: VDICheck) throws(EngineError) {
    let roomCount = geometry.roomCount(inFileOf: fileEnd)
    var used = check.used
    var seen = VDIRoomSet()
    var free: UInt32 = 0
    for block in 0..<geometry.blockCount {
      guard let room = VDIEntry(try map.entry(at: block)).room else { continue }
      guard UInt64(room) < roomCount else {
        try map.setEntry(at: block, to: VDIEntry.zeros.raw)
        continue
      }
      if seen.insert(room) { continue }
      // There are at least as many rooms as blocks.
      free = used.firstFree(from: free)
      try copyRoom(room, to: free)
      _ = used.insert(free)
      _ = seen.insert(free)
      try map.setEntry(at: block, to: free)
      header.allocatedBlockCount = max(header.allocatedBlockCount, free + 1)
    }
    try order.flush()
    fileEnd = try file.byteCount()
  }
}
