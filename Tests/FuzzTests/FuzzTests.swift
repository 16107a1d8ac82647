import FormatEngine
import Foundation
import TestSupport
import Testing

@testable import FuzzTargets

/// What `scripts/fuzz` has found stays mended.
@Suite struct FuzzTests {
  /// An input that broke a promise once.
  struct Finding: CustomTestStringConvertible, Sendable {
    var target: String
    var name: String
    var testDescription: String { "\(target)/\(name)" }

    static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .appendingPathComponent("../../Fuzz/Failures").standardized

    static let all: [Finding] = {
      func names(_ folder: URL) -> [String] {
        (try? FileManager.default.contentsOfDirectory(atPath: folder.path))?.sorted() ?? []
      }
      return names(folder).flatMap { target in
        names(folder.appendingPathComponent(target)).map { Finding(target: target, name: $0) }
      }
    }()
  }

  @Test(arguments: Finding.all)
  func whatWasFoundStaysMended(_ finding: Finding) throws {
    let target = try #require(FuzzTarget.named(finding.target))
    let input = try Files.read("\(Finding.folder.path)/\(finding.testDescription)")
    try Deadline.within(seconds: 300, finding.testDescription) { try target.run(input) }
  }

  /// The inputs of chance that libFuzzer would begin with if it knew nothing.
  @Test(arguments: FuzzTarget.all.map(\.name))
  func anyBytesKeepThePromises(_ name: String) throws {
    let target = try #require(FuzzTarget.named(name))
    var random = SeededRandom.fromEnvironment(or: 88)
    for round in 0..<Effort.rounds(60) {
      let input = random.bytes(random.below(round % 8 == 0 ? 4000 : 200))
      try Deadline.within(seconds: 300, "\(name), round \(round), \(random)") { try target.run(input) }
    }
    Tally.add("inputs of chance for fuzz targets", Effort.rounds(60))
  }

  /// Bytes that are refused in words are no finding; whatever else is thrown is one.
  @Test func onlyErrorsOfTheEngineAreExpected() {
    func run(_ error: any Error) throws { try FuzzTarget("", "") { _ in throw error }.run([]) }
    #expect(throws: Never.self) { try run(EngineError.invalid("The bytes make no sense")) }
    #expect(throws: FuzzFinding.self) { try run(EngineError.invalid("")) }
    #expect(throws: FuzzFinding.self) { try run(FuzzFinding("broken")) }
    #expect(throws: FuzzFinding.self) { try run(TestFailure("something else")) }
  }
}
