import Synchronization

/// Mends what can be mended without guessing: footers and the header are written anew from the sound copy, the file
/// ends after its last block, and a dynamic disk's blocks that are not in the file at all become unused. Blocks that
/// lie over something stay as they are, and so do blocks that a differencing disk has lost: what the parent has
/// there is not what was lost.
extension VPCLayer: Repairable {
  func repair(_ mode: RepairMode, progress: Progress) throws(EngineError) -> CheckReport {
    try state.withLock { (state) throws(EngineError) in
      var checker = VPCChecker(state)
      try checker.run(progress)
      var report = checker.report
      if mode == .all {
        try state.mendHeaders(checker.faults, &report)
        if !state.isDifferencing { try state.removeLost(checker.lostBlocks, &report) }
      }
      // The footer has to come last, and no block may reach beyond it.
      let isCut = checker.end > state.knownEnd
      let mendsTail = checker.faults.contains(.tail) && mode == .all
      if !isCut, checker.faults.contains(.end) || mendsTail {
        let end = checker.faults.contains(.end) ? checker.end : state.contentEnd
        try state.file.resize(to: end)
        try state.file.write(bytes: state.footer.bytes, at: end)
        if mendsTail {
          report.corruptions -= 1
          report.corruptionsFixed += 1
        }
        report.leaksFixed += report.leaks
        report.leaks = 0
      }
      try state.file.flush()
      try state.lookAtFileAgain()
      return report
    }
  }
}

extension VPCState {
  /// What is known of the file is what stood there before.
  fileprivate mutating func lookAtFileAgain() throws(EngineError) {
    copies = try VPCFooterCopies(file)
    contentEnd = copies.contentEnd
    hasSoundEnd = copies.isWhole
    knownEnd = copies.fileByteCount
    session = nil
  }

  fileprivate mutating func mendHeaders(_ faults: Set<VPCChecker.Fault>, _ report: inout CheckReport)
    throws(EngineError)
  {
    if faults.contains(.head) {
      try file.write(bytes: footer.bytes, at: 0)
      report.corruptions -= 1
      report.corruptionsFixed += 1
    }
    if faults.contains(.header) {
      // Of bytes that mean nothing only the checksum would tell whether they are right.
      header.reserved = []
      try file.write(bytes: header.bytes, at: footer.headerOffset)
      report.corruptions -= 1
      report.corruptionsFixed += 1
    }
  }

  fileprivate mutating func removeLost(_ blocks: [UInt64], _ report: inout CheckReport) throws(EngineError) {
    for index in blocks {
      try table.setEntry(at: index, to: VPCGeometry.unused)
      report.corruptions -= 1
      report.corruptionsFixed += 1
    }
    try order.flush()
  }
}
