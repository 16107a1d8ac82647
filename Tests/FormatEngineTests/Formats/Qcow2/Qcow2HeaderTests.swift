import CAllocationCounter
import FormatEngine
import TestSupport
import Testing

/// A number in the header and the values at which its meaning changes.
struct HeaderField: Sendable, CustomTestStringConvertible {
  var name: String
  var offset: Int
  var width: Int
  var limits: [UInt64]

  var testDescription: String { name }

  /// 0, 1, each limit and its neighbours, and the extremes of every width.
  var values: [UInt64] {
    let mask = width == 8 ? UInt64.max : (1 << UInt64(8 * width)) - 1
    var all: Set<UInt64> = [
      0, 1, 2, mask, mask - 1, mask >> 1, (mask >> 1) + 1, 1 << 31 & mask, 0xffff_ffff & mask,
    ]
    for limit in limits { all.formUnion([limit &- 1 & mask, limit & mask, (limit &+ 1) & mask]) }
    return all.sorted()
  }

  static let all = [
    HeaderField(name: "magic", offset: 0, width: 4, limits: [0x5146_49fb]),
    HeaderField(name: "version", offset: 4, width: 4, limits: [2, 3]),
    HeaderField(name: "backing file offset", offset: 8, width: 8, limits: [104, 112, 65536, 1 << 63]),
    HeaderField(name: "backing file size", offset: 16, width: 4, limits: [1023, 65536]),
    HeaderField(name: "cluster bits", offset: 20, width: 4, limits: [9, 16, 21, 63, 64]),
    HeaderField(name: "size", offset: 24, width: 8, limits: [1 << 20, 1 << 29, 1 << 40, 1 << 53, 1 << 63]),
    HeaderField(name: "crypt method", offset: 32, width: 4, limits: [2]),
    HeaderField(name: "L1 size", offset: 36, width: 4, limits: [1, 4 << 20]),
    HeaderField(name: "L1 offset", offset: 40, width: 8, limits: [65536, 1 << 40, 1 << 56, 1 << 63]),
    HeaderField(
      name: "refcount table offset", offset: 48, width: 8, limits: [65536, 1 << 40, 1 << 56, 1 << 63]),
    HeaderField(name: "refcount table clusters", offset: 56, width: 4, limits: [1, 128, 1 << 20]),
    HeaderField(name: "snapshot count", offset: 60, width: 4, limits: [1, 65536]),
    HeaderField(name: "snapshots offset", offset: 64, width: 8, limits: [65536, 1 << 40, 1 << 56, 1 << 63]),
    HeaderField(name: "incompatible features", offset: 72, width: 8, limits: [2, 4, 8, 16, 32, 1 << 63]),
    HeaderField(name: "compatible features", offset: 80, width: 8, limits: [1]),
    HeaderField(name: "autoclear features", offset: 88, width: 8, limits: [3]),
    HeaderField(name: "refcount order", offset: 96, width: 4, limits: [4, 6]),
    HeaderField(name: "header length", offset: 100, width: 4, limits: [72, 104, 112, 65536]),
    HeaderField(name: "compression type", offset: 104, width: 1, limits: [1]),
  ]
}

/// A header whose one field must be refused.
struct RefusedHeader: Sendable, CustomTestStringConvertible {
  var field: String
  var value: UInt64
  /// A part of the message.
  var words: String

  var testDescription: String { "\(field) = \(value)" }

  static let all: [RefusedHeader] = [
    .init(field: "version", value: 1, words: "Unsupported qcow2 version 1"),
    .init(field: "version", value: 4, words: "Unsupported qcow2 version 4"),
    .init(field: "backing file offset", value: 65537, words: "Invalid backing file offset"),
    .init(field: "backing file offset", value: 1, words: "Invalid backing file offset"),
    .init(field: "cluster bits", value: 0, words: "Unsupported cluster size"),
    .init(field: "cluster bits", value: 8, words: "Unsupported cluster size"),
    .init(field: "cluster bits", value: 22, words: "Unsupported cluster size"),
    .init(field: "cluster bits", value: 0xffff_ffff, words: "Unsupported cluster size"),
    .init(field: "size", value: 1 << 63, words: "too large"),
    .init(field: "size", value: 1 << 62, words: "too"),
    .init(field: "size", value: 1 << 40, words: "L1 table is too small"),
    .init(field: "crypt method", value: 1, words: "ncrypt"),
    .init(field: "crypt method", value: 3, words: "Unsupported encryption method 3"),
    .init(field: "L1 size", value: 0, words: "L1 table is too small"),
    .init(field: "L1 size", value: (4 << 20) + 1, words: "Active L1 table too large"),
    .init(field: "L1 size", value: 0xffff_ffff, words: "Active L1 table too large"),
    .init(field: "L1 offset", value: 65537, words: "Active L1 table offset invalid"),
    .init(field: "L1 offset", value: 1 << 63, words: "Active L1 table offset invalid"),
    .init(field: "refcount table offset", value: 1 << 63, words: "Reference count table offset invalid"),
    .init(field: "refcount table offset", value: 1, words: "Reference count table offset invalid"),
    .init(field: "refcount table clusters", value: 0, words: "reference count table"),
    .init(field: "refcount table clusters", value: 129, words: "Reference count table too large"),
    .init(field: "snapshot count", value: 65537, words: "Snapshot table too large"),
    .init(field: "snapshot count", value: 0xffff_ffff, words: "Snapshot table too large"),
    .init(field: "snapshots offset", value: 1, words: "Snapshot table offset invalid"),
    .init(field: "snapshots offset", value: UInt64.max, words: "Snapshot table offset invalid"),
    .init(field: "incompatible features", value: 8, words: "Compression type incompatible feature bit"),
    .init(field: "incompatible features", value: 32, words: "Unsupported qcow2 feature(s)"),
    .init(field: "incompatible features", value: 1 << 63, words: "Unsupported qcow2 feature(s)"),
    .init(field: "refcount order", value: 7, words: "may not exceed 64 bits"),
    .init(field: "refcount order", value: 0xffff_ffff, words: "may not exceed 64 bits"),
    .init(field: "header length", value: 103, words: "header too short"),
    .init(field: "header length", value: 0, words: "header too short"),
    .init(field: "header length", value: 65537, words: "header exceeds cluster size"),
    .init(field: "header length", value: 0xffff_ffff, words: "header exceeds cluster size"),
    .init(field: "compression type", value: 1, words: "Compression type incompatible feature bit"),
  ]
}

/// Headers that are damaged or hostile.
@Suite struct Qcow2HeaderTests {
  @Test(arguments: HeaderField.all)
  func anyValueOfAnyFieldIsReadOrRefused(_ field: HeaderField) throws {
    for options in [[], ["compat=0.10"], ["extended_l2=on"]] {
      let good = try Qcow2Bytes.judged(options)
      for value in field.values {
        try good.with(value, at: field.offset, width: field.width).useEverything(
          "\(field.name) = \(value) \(options)")
      }
    }
  }

  @Test(arguments: RefusedHeader.all)
  func impossibleValueIsRefusedInWords(_ row: RefusedHeader) throws {
    let field = try #require(HeaderField.all.first { $0.name == row.field })
    var image = try Qcow2Bytes.judged().with(row.value, at: field.offset, width: field.width)
    if row.field == "backing file offset" { image.put(8, at: 16, width: 4) }
    let error = try #require(image.openError(), "it opened")
    #expect(error.message.contains(row.words), "\(error.message)")
    #expect(error.code != .notThisFormat)
  }

  /// 32 MiB of L1, 8 MiB of refcount table and the caches fit; a number from a header alone never costs more.
  @Test(arguments: HeaderField.all)
  func noValueOfAnyFieldTakesMuchMemory(_ field: HeaderField) throws {
    let good = try Qcow2Bytes.judged()
    for value in field.values {
      let image = good.with(value, at: field.offset, width: field.width)
      let store = MemoryStore(image.bytes)
      let before = imgfs_allocated_byte_count()
      if let chain = try? ImageChain.over(store, format: Qcow2Format.self) {
        _ = try? chain.readBytes(at: 0, count: 512)
        if let keeping = chain.top as? any SnapshotKeeping { _ = try? keeping.snapshots() }
      }
      #expect(imgfs_allocated_byte_count() - before < 96 << 20, "\(field.name) = \(value)")
    }
  }

  @Test func wrongMagicIsNotThisFormat() throws {
    #expect(try Qcow2Bytes.judged().with(0, at: 0, width: 4).openError()?.code == .notThisFormat)
    #expect(Qcow2Bytes(bytes: []).openError()?.code == .notThisFormat)
    #expect(Qcow2Bytes(bytes: Array("QFI".utf8)).openError()?.code == .notThisFormat)
  }

  @Test func refusedFileIsNotChanged() throws {
    try TemporaryFolder.with { folder in
      for row in RefusedHeader.all {
        let field = try #require(HeaderField.all.first { $0.name == row.field })
        let bytes = try Qcow2Bytes.judged().with(row.value, at: field.offset, width: field.width).bytes
        let path = try folder.write(bytes, to: "image")
        _ = try? ImageOpener.open(path, OpenOptions(format: "qcow2", access: .readWrite))
        #expect(try Files.read(path) == bytes, "\(row.testDescription)")
      }
    }
  }

  @Test func unknownFeatureIsNamedByTheImage() throws {
    var image = try Qcow2Bytes.judged()
    let table = try #require(image.headerExtension(0x6803_f857))
    // The entry for a known bit becomes one for bit 37 with a name of its own.
    let name = Array("frobnicated clusters".utf8)
    image.bytes.replaceSubrange(
      table.offset..<table.offset + 48, with: [0, 37] + name + [UInt8](repeating: 0, count: 46 - name.count))
    image.put(1 << 37, at: 72, width: 8)
    let error = try #require(image.openError())
    #expect(error.code == .unsupported)
    #expect(error.message.contains("frobnicated clusters"))
    image.put(1 << 37 | 1 << 40, at: 72, width: 8)
    let both = try #require(image.openError())
    #expect(both.message.contains("frobnicated clusters") && both.message.contains("10000000000"))
  }

  @Test func unknownCompatibleAndAutoclearFeaturesAreRead() throws {
    let image = try Qcow2Bytes.judged().with(1 << 50, at: 80, width: 8).with(1 << 50, at: 88, width: 8)
    #expect(try image.open().readBytes(at: 65536, count: 2) == [11, 11])
  }

  @Test func corruptImageOpensReadOnly() throws {
    let image = try Qcow2Bytes.judged().with(2, at: 72, width: 8)
    #expect(try image.open().readBytes(at: 65536, count: 2) == [11, 11])
    #expect(image.openError(.readWrite)?.message == "qcow2: Image is corrupt; cannot be opened read/write")
  }

  @Test func dirtyImageOpensReadOnly() throws {
    let image = try Qcow2Bytes.judged().with(1, at: 72, width: 8)
    #expect(try image.open().readBytes(at: 65536, count: 2) == [11, 11])
    #expect((try image.open().top as? any SelfDescribing)?.isDirty == true)
  }
}

/// Header extensions that are damaged or hostile.
@Suite struct Qcow2HeaderExtensionTests {
  private func firstExtension(_ image: Qcow2Bytes) -> Int { Int(image.number(at: 100, width: 4)) }

  @Test(arguments: [65536 - 112 - 7, 65537, 0x7fff_ffff, 0xffff_ffff] as [UInt64])
  func extensionPastItsEndIsRefused(_ length: UInt64) throws {
    var image = try Qcow2Bytes.judged()
    image.put(length, at: firstExtension(image) + 4, width: 4)
    let error = try #require(image.openError())
    #expect(error.code == .corrupt && error.message == "Header extension too large")
  }

  @Test func unknownExtensionIsSkipped() throws {
    var image = try Qcow2Bytes.judged()
    image.put(0x1234_5678, at: firstExtension(image), width: 4)
    #expect(try image.open().readBytes(at: 65536, count: 1) == [11])
  }

  @Test func extensionsWithoutAnEndAreRead() throws {
    var image = try Qcow2Bytes.judged()
    let start = firstExtension(image)
    // Empty extensions of an unknown type up to the cluster's end.
    for offset in stride(from: start, to: 65536, by: 8) {
      image.put(0x1234_5678, at: offset, width: 4)
      image.put(0, at: offset + 4, width: 4)
    }
    try image.useEverything("extensions without an end")
  }

  @Test func featureTableOfOddLengthIsRead() throws {
    var image = try Qcow2Bytes.judged()
    let table = try #require(image.headerExtension(0x6803_f857))
    for length in [0, 1, 47, 49, 95] {
      image.put(UInt64(length), at: table.offset - 4, width: 4)
      image.put(32, at: 72, width: 8)
      #expect(image.openError() != nil)
    }
  }
}
