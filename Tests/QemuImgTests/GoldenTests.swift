import Foundation
import TestSupport
import Testing

/// What the commands print, case by case. `IMGFS_RECORD_GOLDEN=1` writes what they print now, and fails.
@Suite struct GoldenTests {
  @Test func casesAreThere() { #expect(GoldenCase.all.count > 100) }

  @Test(arguments: GoldenCase.all)
  func printsAsRecorded(_ golden: GoldenCase) throws {
    let outcome = try golden.run(with: BuiltProduct.qemuImg.path)
    if ProcessInfo.processInfo.environment["IMGFS_RECORD_GOLDEN"] != nil {
      try golden.record(outcome)
      Issue.record("Recorded; run again without IMGFS_RECORD_GOLDEN")
      return
    }
    let expected = try golden.expected()
    #expect(outcome.stdout == expected.stdout)
    #expect(outcome.stderr == expected.stderr)
    #expect(outcome.exit == expected.exit)
  }

  @Test(arguments: GoldenCase.all.filter(\.isJudged))
  func printsWhatTheJudgePrints(_ golden: GoldenCase) throws {
    let judged = try golden.run(with: ReferenceTool.qemuImg.path).reduced
    let expected = try golden.expected().reduced
    #expect(expected.stdout == judged.stdout)
    #expect(expected.stderr == judged.stderr)
    #expect(expected.exit == judged.exit)
  }
}
