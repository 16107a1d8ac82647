import TestSupport
import Testing

@testable import FormatEngine

/// LUKS volumes beside the judge. What each cipher does is tested with qcow2 (`Qcow2EncryptionTests`), whose LUKS
/// code is the same.
@Suite struct LUKSFormatTests {
  @Test(arguments: [
    [:], ["cipher-alg": "aes-128", "cipher-mode": "cbc", "ivgen-alg": "essiv", "hash-alg": "sha1"],
    ["cipher-alg": "serpent-256", "cipher-mode": "ctr", "ivgen-alg": "plain", "hash-alg": "ripemd160"],
  ])
  func judgeReadsAndWritesWhatWeMake(_ options: [String: String]) throws {
    let image = try LUKSImage(options)
    var random = SeededRandom.fromEnvironment(or: 81)
    var model = ModelDisk(try image.open().readAll())
    let writing = try image.open(.readWrite)
    for _ in 0..<6 {
      let range = random.range(in: LUKSImage.size, most: 100_000)
      let bytes = random.fill(range.count)
      try writing.writeBytes(bytes, at: UInt64(range.lowerBound))
      model.write(bytes, at: range.lowerBound)
    }
    try writing.close()
    try TemporaryFolder.with { folder in
      let path = try folder.write(image.store.snapshot, to: "image")
      func content() throws -> [UInt8] {
        try ReferenceTool.content(of: path, format: "luks", in: folder, passphrase: LUKSImage.passphrase)
      }
      #expect(ModelDisk.firstDifference(try content(), model.bytes) == nil)
      try ReferenceTool.io(
        ["write -q -P 77 65000 3000", "write -q -P 78 500k 70000", "write -q -z 1000 1000"], on: path,
        format: "luks", passphrase: LUKSImage.passphrase)
      model.write([UInt8](repeating: 77, count: 3000), at: 65_000)
      model.write([UInt8](repeating: 78, count: 70_000), at: 500 << 10)
      model.writeZeros(at: 1000, count: 1000)
      let after = try LUKSImage(bytes: try Files.read(path)).open().readAll()
      #expect(ModelDisk.firstDifference(after, model.bytes) == nil)
    }
  }

  @Test func infoOfJudgesImageIsTheJudges() throws {
    try ConformanceRow.judgeLUKS.withFixture { fixture in
      var options = OpenOptions()
      options.isForInspection = true
      let info = try ImageInfo.of(try ImageOpener.open(fixture.path, options).members[0])
      // What is new since the judge's time.
      func record(_ json: String) -> [Substring] {
        json.split(separator: "\n").drop { !$0.hasPrefix("    \"format-specific\"") }
          .prefix { $0 != "    }" && $0 != "    }," }.filter { !$0.contains("detached-header") }
      }
      let ours = record(JSONText.pretty(info.json))
      #expect(ours.count > 30)
      #expect(ours == record(try ReferenceTool.qemuImg("info", "--output=json", fixture.path).stdoutText))
      #expect(info.isEncrypted && info.format == "luks" && info.virtualSize == 512 * KiB)
    }
  }

  @Test func onlyTheFirstVersionIsClaimed() throws {
    let head = Array(try LUKSImage().store.snapshot.prefix(FormatCatalog.probedByteCount))
    func claim(_ bytes: [UInt8]) throws -> String {
      try bytes.parsed { (span) throws(EngineError) in FormatCatalog.probe(span, path: "image").name }
    }
    #expect(try claim(head) == "luks")
    #expect(try claim(Array(head.prefix(8))) == "luks")
    for count in 0..<8 { #expect(try claim(Array(head.prefix(count))) == "raw") }
    for version in [0, 2, 0x101] as [UInt16] {
      var other = head
      (other[6], other[7]) = (UInt8(version >> 8), UInt8(version & 0xff))
      #expect(try claim(other) == "raw")
    }
    #expect(try claim([UInt8](repeating: 0, count: 2048)) == "raw")
  }

  @Test func openingNeedsTheRightSecret() throws {
    let image = try LUKSImage()
    #expect(image.failure(passphrase: nil) == "Parameter 'key-secret' is required for cipher")
    #expect(image.failure(passphrase: "wrong") == "Invalid password, cannot unlock any keyslot")
    var request = LayerRequest(path: "image", access: .readOnly, references: ReferenceOpener())
    request.options["key-secret"] = "other"
    #expect(throws: EngineError.invalid("No secret with id 'other'")) {
      try LUKSFormat.open(image.store, request)
    }
  }

  @Test func withoutKeyNothingIsReadOrWritten() throws {
    let inspected = try LUKSImage().inspect()
    #expect(throws: EngineError.self) { try inspected.readBytes(at: 0, count: 512) }
    let layer = try #require(inspected.top as? LUKSLayer)
    #expect(throws: EngineError.missingKey(option: "key-secret")) { try layer.allocate(at: 0, limit: 512) }
    #expect(throws: EngineError.missingKey(option: "key-secret")) {
      try layer.amend(OptionValues(LUKSFormat.amendOptions), AmendRequest(), progress: .none) { _ in }
    }
  }

  @Test func theDiskIsNotInTheFile() throws {
    let image = try LUKSImage()
    let chain = try image.open(.readWrite)
    let mark = Array("what nobody is to read".utf8)
    try chain.writeBytes((0..<4000).flatMap { _ in mark }, at: 777)
    try chain.flush()
    #expect(image.store.snapshot.firstRange(of: mark) == nil)
    // The same bytes in two sectors, and in the same sector of another volume, are not the same in the file.
    try chain.writeZeros(at: 0, count: 1024)
    let bytes = image.store.snapshot
    let start = LUKSImage.payloadOffset
    #expect(bytes[start..<start + 512] != bytes[start + 512..<start + 1024])
    #expect(try chain.readBytes(at: 0, count: 1024).isZero)
  }

  /// Zeros stay encrypted zeros, whatever lies in the file.
  @Test func zerosAndDiscardsLeaveNoHoles() throws {
    let image = try LUKSImage()
    let chain = try image.open(.readWrite)
    let bytes = [UInt8](repeating: 7, count: LUKSImage.size)
    try chain.writeBytes(bytes, at: 0)
    try chain.writeZeros(at: 4096, count: 100_000)
    try chain.discard(at: 200_000, count: 100_000)
    let now = try chain.readAll()
    #expect(now[4096..<104_096].holdsOnly(0))
    #expect(now[200_000..<300_000].holdsOnly(7))
    #expect(try chain.allExtents().map(\.located.readsAsZeros) == [false])
  }

  @Test func diskIsResized() throws {
    let image = try LUKSImage()
    let chain = try image.open(.readWrite)
    let content = try chain.readAll()
    try chain.resize(to: 3 << 20)
    #expect(chain.virtualSize == 3 << 20)
    #expect(image.store.snapshot.count == LUKSImage.payloadOffset + 3 << 20)
    #expect(try chain.readBytes(at: 0, count: content.count) == content)
    try chain.writeBytes([1, 2, 3], at: 3 << 20 - 3)
    // A part of a sector stays whole: the rest of it is needed.
    try chain.resize(to: 1000)
    #expect(image.store.snapshot.count == LUKSImage.payloadOffset + 1024)
    #expect(try image.open().readAll() == Array(content[..<1024]))
    #expect(throws: EngineError.invalid("Unsupported preallocation mode: metadata")) {
      try chain.resize(to: 2 << 20, preallocation: .metadata)
    }
    #expect(throws: EngineError.self) { try chain.resize(to: UInt64(Int64.max)) }
    #expect(try image.open().virtualSize == 1024)
  }

  @Test func measureIsExact() throws {
    for options in [[:], ["cipher-alg": "aes-128", "cipher-mode": "cbc"]] {
      let made = try LUKSImage.request(options)
      var request = MeasureRequest(virtualSize: made.virtualSize, options: made.options)
      request.secrets = made.secrets
      let byteCount = UInt64(try LUKSImage(options).store.snapshot.count)
      #expect(
        try LUKSFormat.measure(request) == Measurement(required: byteCount, fullyAllocated: byteCount))
    }
  }

  @Test func wrongCreateOptionsAreNamed() throws {
    let cases: [([String: String], String)] = [
      (["key-secret": "other"], "No secret with id 'other'"),
      (["cipher-alg": "foo"], "Parameter 'cipher-alg' does not accept value 'foo'"),
      (["cipher-alg": "cast5-128"], "Unsupported cipher mode xts"),
      (["ivgen-hash-alg": "foo"], "Parameter 'ivgen-hash-alg' does not accept value 'foo'"),
      (["preallocation": "metadata"], "Unsupported preallocation mode: metadata"),
      (["preallocation": "foo"], "invalid parameter value: foo"),
    ]
    for (options, words) in cases {
      let request = try LUKSImage.request(options)
      do throws(EngineError) {
        try LUKSFormat.create(on: MemoryStore(), request)
        Issue.record("\(options) is taken")
      } catch { #expect(error.message == words) }
    }
    var request = try LUKSImage.request([:])
    request.options.remove("key-secret")
    #expect(throws: EngineError.missingKey(option: "key-secret")) {
      try LUKSFormat.create(on: MemoryStore(), request)
    }
    request = try LUKSImage.request([:])
    request.virtualSize = maximumFileOffset - 511
    #expect(throws: EngineError.self) { try LUKSFormat.create(on: MemoryStore(), request) }
  }
}
