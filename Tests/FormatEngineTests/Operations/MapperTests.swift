import TestSupport
import Testing

@testable import FormatEngine

/// What a map has beyond the judge's words, to which `DifferentialReadTests` holds it.
@Suite struct MapperTests {
  /// The tables are looked through in pieces, and the map shows none of that.
  @Test func longHolesAreFoundInPiecesAndShownWhole() throws {
    try TemporaryFolder.with { folder in
      let size: UInt64 = 200 << 40
      let (base, path) = (folder.file("base"), folder.file("disk.qcow2"))
      try ReferenceTool.create(base, format: "qcow2", size: Int(size), options: ["cluster_size=2M"])
      try ReferenceTool.io(["write -P 1 100T 64k"], on: base, format: "qcow2")
      try ReferenceTool.create(
        path, format: "qcow2", size: Int(size), options: ["cluster_size=2M"], over: (base, "qcow2"))
      let chain = try ImageOpener.open(path)
      #expect(try chain.extent(at: 0, limit: size).extent.length == 2 << 40)
      var entries: [MapEntry] = []
      try Mapper.walk(chain, in: 0..<size) { entries.append($0) }
      let cluster: UInt64 = 2 << 20
      #expect(entries.map(\.start) == [0, size / 2, size / 2 + cluster])
      #expect(entries.map(\.isData) == [false, true, false])
    }
  }

  @Test func goesOnWhileItMay() throws {
    try TemporaryFolder.with { folder in
      let chain = try ImageOpener.open(try folder.write([1], to: "disk.raw"))
      let progress = Progress(report: { _, _ in }, isCancelled: { true })
      let error = #expect(throws: EngineError.self) {
        try Mapper.walk(chain, in: 0..<chain.virtualSize, progress) { _ in }
      }
      #expect(error?.code == .cancelled)
    }
  }
}
