import FormatEngine
import Foundation
import TestSupport
import Testing

/// One file's own content: what it stores, and holes everywhere else.
extension ConformanceTests {
  static let overOthers = ConformanceRow.all.filter(\.liesOverAnother)

  @Test(arguments: overOthers)
  func aDeltaHoldsWhatItsFileStoresAndNothingElse(_ row: ConformanceRow) throws {
    try row.withFixture { fixture in
      let chain = try fixture.open()
      #expect(chain.members.count > 1)
      let delta = chain.delta(at: 0)
      #expect(delta.members.count == 1 && !delta.isWritable && delta.virtualSize == chain.virtualSize)
      let (whole, below) = (fixture.model, try #require(fixture.below))
      var held = 0
      for (start, found) in try delta.allExtents() {
        let (first, count) = (Int(start), Int(found.extent.length))
        let bytes = try delta.readBytes(at: start, count: count)
        if found.extent.source == .below {
          #expect(bytes.isZero, "nothing at \(start)")
          let inside = max(0, min(first + count, below.byteCount) - first)
          #expect(
            whole.read(at: first, count: inside)
              == below.read(at: min(first, below.byteCount), count: inside),
            "from below at \(start)")
          #expect(whole.read(at: first + inside, count: count - inside).isZero)
        } else {
          #expect(ModelDisk.firstDifference(bytes, whole.read(at: first, count: count)) == nil, "at \(start)")
          if found.readsAsZeros { #expect(bytes.isZero) } else { held += count }
        }
      }
      #expect(held > 0)
      if chain.members.count == 2 {
        #expect(ModelDisk.firstDifference(try chain.delta(at: 1).readAll(), below.bytes) == nil)
      }
    }
  }

  /// The judge opens the file without what lies below it.
  @Test(arguments: overOthers.filter { $0.isJudged && $0.passphrase == nil })
  func deltasAreWhatTheJudgeSees(_ row: ConformanceRow) throws {
    try row.withFixture { fixture in
      let delta = try fixture.open().unlocked().delta(at: 0)
      let name =
        "json:{\"driver\":\"\(row.format)\",\"backing\":null,\"file\":{\"driver\":\"file\",\"filename\":\"\(fixture.path)\"}}"
      let raw = fixture.folder.file("delta.raw")
      _ = try ReferenceTool.qemuImg.run(["convert", "-O", "raw", name, raw]).expecting(0)
      #expect(ModelDisk.firstDifference(try delta.readAll(), try Files.read(raw)) == nil)
      let result = try ReferenceTool.qemuImg.run(["map", "--output=json", name]).expecting(0)
      let map = try #require(
        try JSONSerialization.jsonObject(with: Data(result.stdout)) as? [[String: Any]])
      for line in map {
        let start = try #require(line["start"] as? UInt64)
        let end = try start + #require(line["length"] as? UInt64)
        let isData = try #require(line["data"] as? Bool)
        var position = start
        while position < end {
          let found = try delta.extent(at: position, limit: end - position)
          #expect(found.readsAsZeros == !isData, "at \(position)")
          position += found.extent.length
        }
      }
    }
  }
}

extension ConformanceRow {
  /// Whether its image lies over another one.
  var liesOverAnother: Bool {
    switch maker {
    case .engine(_, let baseSize): baseSize != nil
    case .judge(let recipe): recipe.depth > 0 || recipe.hasShortRawBase || recipe.hasShortOwnBase
    case .built: (try? withFixture { $0.below != nil }) ?? false
    }
  }
}
