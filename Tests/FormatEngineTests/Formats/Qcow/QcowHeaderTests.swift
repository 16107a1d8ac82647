import TestSupport
import Testing

@testable import FormatEngine

/// Headers that are damaged or hostile.
@Suite struct QcowHeaderTests {
  static let fields = [
    HeaderField(name: "magic", offset: 0, width: 4, limits: [0x5146_49fb]),
    HeaderField(name: "version", offset: 4, width: 4, limits: [1, 2, 3]),
    HeaderField(name: "backing name offset", offset: 8, width: 8, limits: [48, 560, 1 << 63]),
    HeaderField(name: "backing name length", offset: 16, width: 4, limits: [1023]),
    HeaderField(name: "modification time", offset: 20, width: 4, limits: []),
    HeaderField(
      name: "size", offset: 24, width: 8, limits: [512, 1 << 20, 1 << 40, 1 << 49, 1 << 62, 1 << 63]),
    HeaderField(name: "cluster bits", offset: 32, width: 1, limits: [9, 12, 16, 63, 64]),
    HeaderField(name: "L2 bits", offset: 33, width: 1, limits: [6, 9, 13, 63, 64]),
    HeaderField(name: "encryption method", offset: 36, width: 4, limits: [1]),
    HeaderField(name: "L1 offset", offset: 40, width: 8, limits: [48, 4096, 1 << 40, 1 << 63]),
  ]

  /// One field that must be refused, and a part of the message.
  struct Refused: Sendable, CustomTestStringConvertible {
    var field: String
    var value: UInt64
    var words: String
    var testDescription: String { "\(field) = \(value)" }
  }

  static let refused: [Refused] =
    [0, 8, 17, 64, 255].map {
      Refused(field: "cluster bits", value: $0, words: "Cluster size must be between 512 and 64k")
    }
    + [0, 5, 14, 64, 255].map {
      Refused(field: "L2 bits", value: $0, words: "L2 table size must be between 512 and 64k")
    }
    + [0, 1].map {
      Refused(field: "size", value: $0, words: "Image size is too small (must be at least 2 bytes)")
    }
    + [1 << 63, UInt64.max, (1 << 63) - 1, 1 << 60].map {
      Refused(field: "size", value: $0, words: "Image too large")
    }
    + [0, 8, 47, 1 << 40, UInt64.max - 7].map {
      Refused(field: "L1 offset", value: $0, words: "The L1 table does not lie in the image file")
    } + [
      Refused(field: "size", value: 1 << 48, words: "The L1 table does not lie in the image file"),
      Refused(field: "encryption method", value: 2, words: "invalid encryption method in qcow header"),
      Refused(field: "encryption method", value: 1, words: "Parameter 'encrypt.key-secret' is required"),
      Refused(field: "version", value: 0, words: "does not support qcow version 0"),
      Refused(field: "version", value: 2, words: "Try the 'qcow2' driver instead."),
    ]

  static func good() throws -> ImageBytes {
    try .judged(
      QcowFormat.self, isBigEndian: true, size: "1M", ["write -q -P 11 64k 64k", "write -q -P 15 320k 64k"])
  }

  @Test(arguments: fields) func anyValueOfAnyFieldIsReadOrRefused(_ field: HeaderField) throws {
    let plain = try Self.good()
    let overlay = plain.with(48, at: 8, width: 8).with(3, at: 16, width: 4)
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
    #expect(error.text.contains(row.words), "\(error.message)")
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

  @Test(arguments: [(0x7fff_ffff, 1024), (48, 1024), (48, 0xffff_ffff), (4, 8), (1 << 62, 4)])
  func backingNameElsewhereIsRefused(_ offset: Int, _ length: Int) throws {
    let image = try Self.good().with(UInt64(offset), at: 8, width: 8).with(UInt64(length), at: 16, width: 4)
    #expect(image.openError()?.code == .corrupt)
  }

  @Test func headerThatIsCutOffIsRefused() throws {
    let good = try Self.good()
    // The L1 table ends at 56.
    for count in 0..<56 {
      let cut = ImageBytes(bytes: Array(good.bytes.prefix(count)), format: QcowFormat.self, isBigEndian: true)
      #expect(cut.openError() != nil)
    }
  }

  @Test func probingTellsTheVersionsApart() throws {
    let good = try Self.good()
    func score(_ format: any ImageFormat.Type, _ image: ImageBytes) throws -> ProbeScore {
      try Array(image.bytes.prefix(2048)).parsed { (span) throws(EngineError) in format.probe(span, path: "x")
      }
    }
    #expect(try score(QcowFormat.self, good) == .certain)
    #expect(try score(Qcow2Format.self, good) == .none)
    #expect(try score(QcowFormat.self, good.with(2, at: 4, width: 4)) == .none)
    #expect(try score(QcowFormat.self, good.with(0, at: 4, width: 4)) == .none)
  }

  @Test func headerIsWrittenAsItWasRead() throws {
    let good = try Self.good().with(0x1234_5678, at: 20, width: 4).with(0xabcd, at: 34, width: 2)
    let header = try good.bytes.parsed { (span) throws(EngineError) in try QcowHeader.parse(span) }
    #expect(header.serialised() == Array(good.bytes.prefix(48)))
  }
}
