import Testing

@testable import FormatEngine

/// What errors say once they were handed on.
@Suite struct EngineErrorTests {
  /// What there is to add goes with the words that it belongs to.
  @Test func additionsStayWithTheirMessage() throws {
    var reason = EngineError(.permissionDenied, "Could not open 'base'")
    reason.additions = ["It lies elsewhere."]
    let missing = try #require(MissingImage(reason, name: "base", path: nil))
    #expect(missing.readFailure.additions == ["It lies elsewhere."])
    #expect(reason.inSystemWords.text == "Permission denied")
    reason.code = .locked
    #expect(reason.inSystemWords.text == "Could not open 'base'\nIt lies elsewhere.")
  }
}
