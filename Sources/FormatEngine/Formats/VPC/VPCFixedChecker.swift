import Synchronization

extension VPCFixedLayer: Checkable {
  /// A fixed disk has nothing but its footer, without which it would not have been opened, and a length.
  func check(progress: Progress) throws(EngineError) -> CheckReport {
    var report = CheckReport()
    let contentEnd = end.withLock { $0.hostOffset }
    report.imageEndOffset = contentEnd
    if virtualSize > contentEnd {
      report.findings.append(
        "ERROR the image ends at \(contentEnd), before its disk of \(virtualSize) bytes does")
      report.corruptions = 1
    }
    return report
  }
}
