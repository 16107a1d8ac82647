import TestSupport
import Testing

@testable import FormatEngine

/// Headers that are damaged or hostile.
@Suite struct QEDHeaderTests {
  static let fields = [
    HeaderField(name: "magic", offset: 0, width: 4, limits: [0x0044_4551]),
    HeaderField(name: "cluster size", offset: 4, width: 4, limits: [4096, 65536, 1 << 26, 1 << 27]),
    HeaderField(name: "table size", offset: 8, width: 4, limits: [1, 4, 16, 32]),
    HeaderField(name: "header size", offset: 12, width: 4, limits: [1, 2, 6, 65535, 65536]),
    HeaderField(name: "features", offset: 16, width: 8, limits: [1, 2, 4, 8, 1 << 63]),
    HeaderField(name: "compatible features", offset: 24, width: 8, limits: [1]),
    HeaderField(name: "autoclear features", offset: 32, width: 8, limits: [1]),
    HeaderField(name: "L1 offset", offset: 40, width: 8, limits: [65536, 1 << 20, 1 << 40, 1 << 63]),
    HeaderField(name: "size", offset: 48, width: 8, limits: [512, 1 << 20, 1 << 46, 1 << 62, 1 << 63]),
    HeaderField(name: "backing name offset", offset: 56, width: 4, limits: [64, 1023, 65536]),
    HeaderField(name: "backing name length", offset: 60, width: 4, limits: [1023, 65536]),
  ]

  /// One field that must be refused, and a part of the message.
  struct Refused: Sendable, CustomTestStringConvertible {
    var field: String
    var value: UInt64
    var words: String
    var testDescription: String { "\(field) = \(value)" }
  }

  static let refused: [Refused] =
    [0, 1, 2048, 4097, 1 << 27, 0xffff_ffff].map {
      Refused(field: "cluster size", value: $0, words: "QED cluster size is invalid")
    }
    + [0, 3, 17, 32, 0xffff_ffff].map {
      Refused(field: "table size", value: $0, words: "QED table size is invalid")
    } + [
      Refused(field: "header size", value: 0, words: "QED header size is invalid"),
      Refused(field: "header size", value: 0xffff_ffff, words: "QED table offset is invalid"),
      Refused(field: "features", value: 8, words: "Unsupported QED features: 8"),
      Refused(field: "features", value: 1 << 63, words: "Unsupported QED features: 8000000000000000"),
      Refused(field: "L1 offset", value: 0, words: "QED table offset is invalid"),
      Refused(field: "L1 offset", value: 65537, words: "QED table offset is invalid"),
      Refused(field: "L1 offset", value: 1 << 40, words: "QED table offset is invalid"),
      Refused(field: "L1 offset", value: UInt64.max - 65535, words: "QED table offset is invalid"),
      Refused(field: "size", value: 513, words: "QED image size is invalid"),
      Refused(field: "size", value: (1 << 46) + 512, words: "QED image size is invalid"),
      Refused(field: "size", value: UInt64.max, words: "QED image size is invalid"),
    ]

  static func good() throws -> ImageBytes {
    try .judged(
      QEDFormat.self, isBigEndian: false, size: "1M", ["write -q -P 11 64k 64k", "write -q -P 15 320k 64k"])
  }

  @Test(arguments: fields) func anyValueOfAnyFieldIsReadOrRefused(_ field: HeaderField) throws {
    let plain = try Self.good()
    var overlay = plain.with(1, at: 16, width: 8).with(64, at: 56, width: 4).with(3, at: 60, width: 4)
    overlay.bytes.replaceSubrange(64..<67, with: Array("low".utf8))
    for image in [plain, overlay] {
      for value in field.values {
        image.with(value, at: field.offset, width: field.width).useEverything("\(field.name) = \(value)")
      }
    }
  }

  @Test(arguments: refused) func impossibleValueIsRefusedInWords(_ row: Refused) throws {
    let field = try #require(Self.fields.first { $0.name == row.field })
    let image = try Self.good().with(row.value, at: field.offset, width: field.width)
    let error = try #require(image.openError(), "it opened")
    #expect(error.message == row.words)
    #expect(error.code != .notThisFormat)
    try image.expectUnchangedByOpening()
  }

  @Test(arguments: fields) func noValueOfAnyFieldTakesMuchMemory(_ field: HeaderField) throws {
    let good = try Self.good()
    for value in field.values {
      let image = good.with(value, at: field.offset, width: field.width)
      image.openInLittleMemory(48 << 20, "\(field.name) = \(value)")
    }
  }

  /// The name has to lie behind the header's fields, in the header's clusters.
  @Test(arguments: [(0, 3), (63, 3), (65534, 3), (65536, 3), (64, 1024), (0xffff_ffff, 0xffff_ffff)])
  func backingNameElsewhereIsRefused(_ offset: Int, _ length: Int) throws {
    let image = try Self.good().with(1, at: 16, width: 8).with(UInt64(offset), at: 56, width: 4)
      .with(UInt64(length), at: 60, width: 4)
    #expect(image.openError()?.message.contains("QED backing filename") == true)
  }

  @Test func headerThatIsCutOffIsRefused() throws {
    let good = try Self.good()
    for count in 0..<64 {
      let cut = ImageBytes(bytes: Array(good.bytes.prefix(count)), format: QEDFormat.self, isBigEndian: false)
      #expect(cut.openError() != nil)
    }
  }

  @Test func probingClaimsWholeHeadersOnly() throws {
    let good = try Self.good().bytes
    func score(_ bytes: [UInt8]) throws -> ProbeScore {
      try bytes.parsed { (span) throws(EngineError) in QEDFormat.probe(span, path: "x") }
    }
    #expect(try score(Array(good.prefix(2048))) == .certain)
    #expect(try score(Array(good.prefix(63))) == .none)
    #expect(try score([UInt8](repeating: 0, count: 2048)) == .none)
  }

  @Test func headerIsWrittenAsItWasRead() throws {
    let good = try Self.good()
    let header = try good.bytes.parsed { (span) throws(EngineError) in try QEDHeader.parse(span) }
    #expect(header.serialised() == Array(good.bytes.prefix(64)))
  }
}
