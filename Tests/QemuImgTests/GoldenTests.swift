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
    let judged = try judge(golden).reduced
    let expected = try golden.expected().reduced
    #expect(expected.stdout == judged.stdout)
    #expect(expected.stderr == judged.stderr)
    #expect(expected.exit == judged.exit)
  }

  /// The judge gives up a new LUKS header by chance, when its clock of processor time stands still between two
  /// looks: then it is asked again.
  private func judge(_ golden: GoldenCase) throws -> GoldenCase.Outcome {
    var outcome = try golden.run(with: ReferenceTool.qemuImg.path)
    for _ in 0..<20 where outcome.stderr.contains("Unable to get accurate CPU usage") {
      outcome = try golden.run(with: ReferenceTool.qemuImg.path)
    }
    return outcome
  }
}
