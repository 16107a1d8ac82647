import Synchronization

extension VMDKLayer: Repairable {
  func check(progress: Progress) throws(EngineError) -> CheckReport {
    try run(repairing: nil, progress)
  }

  func repair(_ mode: RepairMode, progress: Progress) throws(EngineError) -> CheckReport {
    try run(repairing: mode, progress)
  }

  private func run(repairing: RepairMode?, _ progress: Progress) throws(EngineError) -> CheckReport {
    var report = CheckReport()
    for extent in state.withLock({ $0.extents }) {
      guard let file = extent.file else { continue }
      switch extent.content {
      case .zeros: continue
      case .unopened: throw .unsupported("The extent '\(extent.line.fileName)' is not open")
      case .flat(let start):
        let size = extent.range.upperBound - extent.range.lowerBound
        if try file.store.byteCount() < start + size {
          report.corruptions += 1
          report.findings.append(
            "ERROR: extent '\(extent.line.fileName)' is shorter than the descriptor says")
        }
      case .sparse(let geometry):
        var checker = try VMDKSparseChecker(
          geometry, file: file.store, guestStart: extent.range.lowerBound, repairing: repairing)
        try checker.run(progress, total: virtualSize)
        report.add(checker.report)
      case .spaceEfficient(let geometry):
        var checker = try VMDKSESparseChecker(geometry, file: file.store, guestStart: extent.range.lowerBound)
        try checker.run(progress, total: virtualSize)
        report.add(checker.report)
      }
    }
    return report
  }
}

extension CheckReport {
  fileprivate mutating func add(_ other: CheckReport) {
    findings += other.findings
    corruptions += other.corruptions
    leaks += other.leaks
    corruptionsFixed += other.corruptionsFixed
    leaksFixed += other.leaksFixed
    checkErrors += other.checkErrors
  }
}
