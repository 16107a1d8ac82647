import Synchronization

extension VHDXLayer: Repairable {
  func check(progress: Progress) throws(EngineError) -> CheckReport {
    try checked(mending: false, progress)
  }

  /// What opening has done to the log counts as one mended thing, as in qemu-img. Entries that point to nothing at all
  /// are made zeros; where two share a block nobody can say whose it is.
  func repair(_ mode: RepairMode, progress: Progress) throws(EngineError) -> CheckReport {
    var report = try checked(mending: mode == .all, progress)
    if replay == .inFile { report.corruptionsFixed += 1 }
    return report
  }

  /// Nothing is written where there is nothing to mend: children go by the id that every change renews.
  private func checked(mending: Bool, _ progress: Progress) throws(EngineError) -> CheckReport {
    guard replay != .inMemory else {
      throw EngineError(
        .readOnly,
        "VHDX image file '\(path)' opened read-only, but contains a log that needs to be replayed\n"
          + "To replay the log, run:\nqemu-img check -r all '\(path)'", path: path)
    }
    return try state.withLock { (state) throws(EngineError) in
      var checker = try VHDXChecker(state)
      try checker.run(progress)
      if mending, checker.hasLostBlocks {
        try state.prepareToWrite(mending: true)
        try checker.mend(&state)
        try state.close()
      }
      if let copy = try VHDXRegions.damagedCopy(in: state.file) {
        if mending { try VHDXRegions.mendCopy(at: copy, in: state.file) }
        checker.noteRegions(at: copy, isMended: mending)
      }
      return checker.report
    }
  }
}

/// Goes over the BAT: every block lies in the file, apart from everything else.
struct VHDXChecker {
  private(set) var report = CheckReport()
  private let state: VHDXState
  /// The MiB of the file that are in use: blocks and regions are all in whole ones.
  private let room: UnitBits
  /// First byte after the room of all blocks; that of the disk's last one may be longer than what a guest has of it.
  private(set) var roomEnd: UInt64 = 0
  /// Blocks whose entries point past the end of the file from their first byte on.
  private var lost: [UInt64] = []
  var hasLostBlocks: Bool { !lost.isEmpty }
  /// More lines say nothing new; the counts go on.
  private static let maximumFindings = 1000
  private static let maximumMended = 1 << 20

  init(_ state: VHDXState) throws(EngineError) {
    self.state = state
    room = try UnitBits(count: state.fileEnd.dividedRoundingUp(by: MiB))
    _ = take(0..<MiB)
    _ = take(state.image.header.logRange)
    for entry in state.image.regions.entries { _ = take(entry.range) }
  }

  /// False where something else is there already.
  private func take(_ range: Range<UInt64>) -> Bool {
    room.insert(range.lowerBound / MiB..<range.upperBound.dividedRoundingUp(by: MiB)) == 0
  }

  mutating func run(_ progress: Progress) throws(EngineError) {
    let geometry = state.geometry
    for block in 0..<geometry.blockCount {
      if block % 4096 == 0 { try progress.step(block, of: geometry.blockCount) }
      try check(block)
    }
    guard geometry.hasParent else { return }
    for chunk in 0..<geometry.chunkCount {
      let index = geometry.bitmapEntryIndex(ofChunk: chunk)
      let entry = VHDXEntry(raw: try state.pages.number(at: state.entryOffset(index)))
      if entry.state == .fullyPresent { _ = check(entry, index, byteCount: MiB, room: MiB) }
    }
  }

  private mutating func check(_ block: UInt64) throws(EngineError) {
    let geometry = state.geometry
    let entry = try state.entry(ofBlock: block)
    let index = geometry.entryIndex(ofBlock: block)
    switch entry.state {
    case nil: note("ERROR: VHDX BAT entry \(index) has the reserved state \(entry.raw & 7).")
    case .partiallyPresent where !geometry.hasParent:
      note("ERROR: VHDX BAT entry \(index) is partially present, and there is no parent.")
    case .partiallyPresent:
      if (try? state.bitmapOffset(ofBlock: block)) == nil {
        note("ERROR: VHDX BAT entry \(index) is partially present, and has no sector bitmap.")
      }
      _ = check(
        entry, index, byteCount: geometry.byteCount(ofBlock: block), room: geometry.blockSize)
    case .fullyPresent:
      let isSomewhere = check(
        entry, index, byteCount: geometry.byteCount(ofBlock: block), room: geometry.blockSize)
      if !isSomewhere, lost.count < Self.maximumMended { lost.append(block) }
    case .notPresent, .undefined, .zero, .unmapped, .draftUnmapped: break
    }
  }

  /// False where not even the first byte lies in the file.
  /// `room`: what it takes of the file; that of the disk's last block may be more than a guest has of it.
  private mutating func check(_ entry: VHDXEntry, _ index: UInt64, byteCount: UInt64, room: UInt64) -> Bool {
    let (start, end) = (entry.hostOffset, entry.hostOffset.addingReportingOverflow(byteCount))
    let which = "VHDX BAT entry \(index)"
    if end.overflow {
      note("\(which) offset overflow.")
    } else if start >= state.fileEnd {
      note(
        "\(which) start offset \(start) points after end of file (\(state.fileEnd))."
          + " Image has probably been truncated.")
      return false
    } else if end.partialValue > state.fileEnd {
      note(
        "\(which) end offset \(end.partialValue - 1) points after end of file (\(state.fileEnd))."
          + " Image has probably been truncated.")
    } else {
      roomEnd = max(roomEnd, start + room)
      if !take(start..<end.partialValue) {
        note("ERROR: \(which) points to \(start), where something else is.")
      }
    }
    return true
  }

  /// The other copy of the region table is read, but not by every program.
  mutating func noteRegions(at hostOffset: UInt64, isMended: Bool) {
    note("ERROR: The copy of the VHDX region table at \(hostOffset) is damaged.")
    if isMended {
      report.corruptions -= 1
      report.corruptionsFixed += 1
    }
  }

  private mutating func note(_ finding: String) {
    if report.findings.count < Self.maximumFindings { report.findings.append(finding) }
    report.corruptions += 1
  }

  /// Makes zeros of what lies nowhere.
  mutating func mend(_ state: inout VHDXState) throws(EngineError) {
    for block in lost {
      try state.makeRoomForChange()
      try state.setEntry(ofBlock: block, to: VHDXEntry(.zero))
    }
    try state.flush()
    report.corruptionsFixed += UInt64(lost.count)
    report.corruptions -= UInt64(lost.count)
  }
}
