import FormatEngine
import TestSupport
import Testing

/// The count of blocks in a VDI header while the image is in use, or after a crash: it may be too high, never too low.
/// Programs that go by it put their next block behind all others then.
enum VDICount {
  static func expectNotTooLow(_ bytes: [UInt8], _ report: CheckReport, _ moment: String) throws {
    #expect(
      report.findings.allSatisfy { $0.hasPrefix("ERROR: allocated blocks mismatch") },
      "\(moment): \(report.findings)")
    let image = VDIBytes(bytes)
    let end = image.entries.filter { $0 < VDIBytes.zeros }.map { $0 + 1 }.max() ?? 0
    #expect(image.field(388) >= end, "\(moment): \(image.field(388)) blocks counted, \(end) in use")
  }

  /// Mends a count that is too high. Nothing that is read changes by it.
  static func settle(_ path: String, _ moment: String) throws {
    let bytes = try Files.read(path)
    let before = try ImageOpener.open(path, OpenOptions(format: "vdi")).readAll()
    var options = OpenOptions(format: "vdi", access: .readWrite)
    options.isForInspection = true
    let chain = try ImageOpener.open(path, options)
    let layer = try #require(chain.top as? any Repairable)
    try expectNotTooLow(bytes, try layer.check(progress: .none), moment)
    let report = try layer.repair(.leaks, progress: .none)
    #expect(report.corruptions == 0 && report.failure == nil, "\(moment)")
    try chain.close()
    #expect(try ImageOpener.open(path, OpenOptions(format: "vdi")).readAll() == before, "\(moment)")
  }
}
