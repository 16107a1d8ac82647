import TestSupport
import Testing

@testable import FormatEngine

/// Encrypted images beside the judge.
@Suite struct Qcow2EncryptionTests {
  struct Choice: Sendable, CustomTestStringConvertible {
    var options: [String: String]
    var testDescription: String {
      options.keys.sorted().map { "\($0)=\(options[$0] ?? "")" }.joined(separator: ",")
    }
  }

  /// Every cipher and every mode, each with each when there is time, with IV generators and hashes in turn.
  /// Where a key's stripes do not fill whole sectors (24 bytes) the judge ends itself.
  static let choices: [Choice] = {
    var result: [Choice] = []
    let generators: [(String, String?)] = [
      ("plain", nil), ("plain64", nil), ("essiv", "sha256"), ("essiv", nil), ("essiv", "md5"),
      ("plain64", "sha1"),
    ]
    for (row, cipher) in CipherAlgorithm.allCases.enumerated() {
      for (column, mode) in CipherMode.allCases.enumerated() where cipher != .cast5 || mode != .xts {
        guard Effort.current == .soak || cipher == .aes256 || (row + column) % 2 == 0 else { continue }
        guard cipher.keyByteCount != 24 || mode == .xts else { continue }
        let (generator, hash) = cipher == .cast5 ? ("plain64", nil) : generators[result.count % 6]
        var options = [
          "cipher-alg": cipher.rawValue, "cipher-mode": mode.rawValue, "ivgen-alg": generator,
          "hash-alg": HashAlgorithm.allCases[result.count % 7].rawValue,
        ]
        options["ivgen-hash-alg"] = hash
        result.append(Choice(options: options))
      }
    }
    return result + [Choice(options: ["format": "aes"])]
  }()

  @Test(arguments: choices) func judgeReadsAndWritesWhatWeMake(_ choice: Choice) throws {
    let image = try EncryptedImage(choice.options)
    var random = SeededRandom.fromEnvironment(or: 71)
    let content = random.fill(100_000)
    let writing = try image.open(.readWrite)
    try writing.writeBytes(content, at: 1234)
    try writing.flush()
    try TemporaryFolder.with { folder in
      let path = try folder.write(image.store.snapshot, to: "image")
      try ReferenceTool.io(
        [
          "read -q -P \(content[0]) 1234 100000", "read -q -P 0 0 1234", "read -q -P 0 101234 900000",
          "write -q -P 77 65000 3000", "write -q -P 78 500k 70000",
        ], on: path, format: "qcow2", passphrase: EncryptedImage.passphrase)
      var model = ModelDisk([UInt8](repeating: 0, count: EncryptedImage.size))
      model.write(content, at: 1234)
      model.write([UInt8](repeating: 77, count: 3000), at: 65_000)
      model.write([UInt8](repeating: 78, count: 70_000), at: 500 << 10)
      let after = try EncryptedImage(bytes: try Files.read(path)).open().readAll()
      #expect(ModelDisk.firstDifference(after, model.bytes) == nil)
    }
  }

  /// A key of 24 bytes, which the judge cannot make: its last sector of key material is filled up.
  @Test func oddKeysWorkHere() throws {
    let image = try EncryptedImage(["cipher-alg": "aes-192", "cipher-mode": "cbc", "ivgen-alg": "essiv"])
    let writing = try image.open(.readWrite)
    try writing.writeBytes([UInt8](repeating: 9, count: 4096), at: 100)
    try writing.flush()
    #expect(try image.open().readBytes(at: 100, count: 4096).holdsOnly(9))
    #expect(image.failure(passphrase: "wrong") != nil)
  }

  @Test(arguments: [
    "encrypt.format=luks,encrypt.iter-time=10,encrypt.ivgen-alg=essiv,cluster_size=4k", "encrypt.format=aes",
    "encryption=on,compat=0.10",
  ])
  func judgesImagesAreRead(_ options: String) throws {
    try TemporaryFolder.with { folder in
      let path = folder.file("image")
      let create = [
        "create", "-q", "-f", "qcow2", "--object", "secret,id=key,data=\(EncryptedImage.passphrase)", "-o",
        options + ",encrypt.key-secret=key", path, "1M",
      ]
      var result = try ReferenceTool.qemuImg.run(create)
      // Its clock fails now and then.
      for _ in 0..<20 where result.stderrText.contains("accurate CPU usage") {
        result = try ReferenceTool.qemuImg.run(create)
      }
      _ = try result.expecting(0)
      try ReferenceTool.io(
        [
          "write -q -P 3 0 64k", "write -q -P 4 70000 100", "write -q -z 128k 64k", "write -q -P 5 700k 100k",
        ],
        on: path, format: "qcow2", passphrase: EncryptedImage.passphrase)
      let content = try ReferenceTool.content(
        of: path, format: "qcow2", in: folder, passphrase: EncryptedImage.passphrase)
      let image = EncryptedImage(bytes: try Files.read(path))
      #expect(try image.open().readAll() == content)
      let chain = try ImageOpener.open(path, inspecting)
      let ours = record(JSONText.pretty(try ImageInfo.of(chain.members[0]).json))
      let judges = record(try ReferenceTool.qemuImg("info", "--output=json", path).stdoutText)
      #expect(ours.count > 1 || options.contains("luks") == false)
      #expect(ours == judges)
    }
  }

  private var inspecting: OpenOptions {
    var options = OpenOptions(format: "qcow2")
    options.isForInspection = true
    return options
  }

  /// What `info` as JSON says of the encryption, but for the field that the judge is too old for.
  private func record(_ json: String) -> [Substring] {
    let lines = json.split(separator: "\n").drop { !$0.hasSuffix("\"encrypt\": {") }
    return lines.prefix { !$0.hasPrefix("            }") }.filter { !$0.contains("detached-header") }
  }

  @Test func openingNeedsTheRightSecret() throws {
    let image = try EncryptedImage()
    #expect(image.failure(passphrase: nil) == "Parameter 'encrypt.key-secret' is required for cipher")
    #expect(image.failure(passphrase: "wrong") == "Invalid password, cannot unlock any keyslot")
    var request = LayerRequest(path: "image", access: .readOnly, references: ReferenceOpener())
    request.secrets.add(Secret(text: EncryptedImage.passphrase), id: "key")
    func failure(_ options: [String: String]) -> String? {
      request.options = options
      do throws(EngineError) {
        _ = try Qcow2Format.open(image.store, request)
        return nil
      } catch { return error.message }
    }
    #expect(failure(["encrypt.key-secret": "key"]) == nil)
    #expect(failure(["encrypt.key-secret": "key", "encrypt.format": "luks"]) == nil)
    unsafe request.secrets.add(
      Secret(count: 2) { unsafe $0.initializeMemory(as: UInt8.self, repeating: 0xff) }, id: "raw")
    #expect(failure(["encrypt.key-secret": "raw"]) == "Data from secret raw is not valid UTF-8")
    #expect(failure(["encrypt.key-secret": "other"]) == "No secret with id 'other'")
    #expect(
      failure(["encrypt.key-secret": "key", "encrypt.format": "aes"])
        == "Header reported 'luks' encryption format but options specify 'aes'")
  }

  @Test func withoutKeyNothingIsReadOrWritten() throws {
    for format in ["luks", "aes"] {
      let image = try EncryptedImage(["format": format])
      let writing = try image.open(.readWrite)
      try writing.writeBytes([UInt8](repeating: 1, count: 65_536), at: 0)
      try writing.flush()
      let inspected = try image.inspect()
      #expect(throws: EngineError.missingKey) { try inspected.readBytes(at: 0, count: 512) }
      // What is not stored needs no key.
      #expect(try inspected.readBytes(at: 500_000, count: 512).isZero)
      let layer = try #require(inspected.top as? any WritableLayer)
      #expect(throws: EngineError.missingKey) { try layer.allocate(at: 0, limit: 65_536) }
    }
  }

  @Test func compressedClustersAreRefused() throws {
    let source = try EncryptedImage()
    let writing = try source.open(.readWrite)
    try writing.writeBytes([UInt8](repeating: 1, count: 65_536), at: 0)
    let target = try EncryptedImage().open(.readWrite)
    var options = ConvertOptions()
    options.compress = true
    do throws(EngineError) {
      try Converter.convert(from: [writing], to: target, options)
      Issue.record("packed clusters are taken")
    } catch { #expect(error.message.hasSuffix("Compression and encryption not supported at the same time")) }
  }

  @Test func wrongCreateOptionsAreNamed() throws {
    let cases: [([String: String], [String: String], String)] = [
      (["format": "foo"], [:], "Parameter 'format' does not accept value 'foo'"),
      (["key-secret": "other"], [:], "No secret with id 'other'"),
      (["cipher-alg": "foo"], [:], "Parameter 'cipher-alg' does not accept value 'foo'"),
      (["cipher-alg": "3des"], [:], "Algorithm '3des' not supported"),
      (["cipher-mode": "foo"], [:], "Parameter 'cipher-mode' does not accept value 'foo'"),
      (["ivgen-alg": "foo"], [:], "Parameter 'ivgen-alg' does not accept value 'foo'"),
      (["ivgen-hash-alg": "foo"], [:], "Parameter 'ivgen-hash-alg' does not accept value 'foo'"),
      (["hash-alg": "foo"], [:], "Parameter 'hash-alg' does not accept value 'foo'"),
      (
        ["cipher-alg": "cast5-128", "ivgen-alg": "essiv"], [:], "Cipher cast5-128 not supported with essiv"
      ),
      (["cipher-alg": "cast5-128"], [:], "Unsupported cipher mode xts"),
      (
        ["ivgen-alg": "essiv", "ivgen-hash-alg": "sha512"], [:], "No AES cipher with key size 64 available"
      ),
      (["format": "aes", "cipher-alg": "aes-128"], [:], "Parameter 'encrypt.cipher-alg' is unexpected"),
      (
        ["format": "aes"], ["encryption": "on"],
        "'encrypt.format' and its alias 'encryption' can't be used at the same time"
      ),
      (
        [:], ["compat": "0.10", "preallocation": "full"],
        "Preallocation of an encrypted image requires compatibility level 1.1 or above"
          + " (use version=v3 or greater)"
      ),
    ]
    for (encrypt, others, words) in cases {
      do {
        _ = try EncryptedImage(encrypt, others: others)
        Issue.record("\(encrypt) is taken")
      } catch let error as EngineError { #expect(error.message == words) }
    }
    var values = OptionValues(Qcow2Format.createOptions)
    try values.set("encrypt.key-secret", to: "key")
    #expect(throws: EngineError.invalid("Parameter 'encrypt.format' is missing")) {
      try Qcow2NewEncryption(values, SecretStore())
    }
    try values.set("encryption", to: "on")
    values.remove("encrypt.key-secret")
    #expect(throws: EngineError.missingKey) { try Qcow2NewEncryption(values, SecretStore()) }
  }

  /// Over two clusters that are not there yet, from and to the middle of sectors (QEMU's commit 38e7d54bdc).
  @Test(arguments: ["luks", "aes"]) func unalignedWriteOverNewClustersKeepsItsSectorsApart(_ format: String)
    throws
  {
    let image = try EncryptedImage(["format": format])
    let chain = try image.open(.readWrite)
    var model = ModelDisk([UInt8](repeating: 0, count: EncryptedImage.size))
    for (offset, count) in [(65_000, 1000), (3 * 65_536 - 1, 2), (5 * 65_536 + 511, 2 * 65_536 + 2)] {
      let bytes = [UInt8](repeating: UInt8(count & 0x7f | 1), count: count)
      try chain.writeBytes(bytes, at: UInt64(offset))
      model.write(bytes, at: offset)
      #expect(ModelDisk.firstDifference(try chain.readAll(), model.bytes) == nil)
    }
    try chain.flush()
    #expect(ModelDisk.firstDifference(try image.open().readAll(), model.bytes) == nil)
  }

  @Test func theDiskIsNotInTheFile() throws {
    for format in ["luks", "aes"] {
      let image = try EncryptedImage(["format": format])
      let chain = try image.open(.readWrite)
      let mark = Array("what nobody is to read".utf8)
      try chain.writeBytes((0..<4000).flatMap { _ in mark }, at: 777)
      try chain.flush()
      #expect(image.store.snapshot.firstRange(of: mark) == nil)
      #expect(try chain.extent(at: 0, limit: 1 << 20).extent.isEncrypted)
    }
  }

  /// Room that is set aside reads as zeros, though what is in it decrypts to anything else.
  @Test(arguments: ["metadata", "full"], ["off", "on"])
  func preallocatedRoomReadsAsZeros(_ mode: String, _ subclusters: String) throws {
    let image = try EncryptedImage(others: ["preallocation": mode, "extended_l2": subclusters])
    let chain = try image.open(.readWrite)
    #expect(try chain.readAll().isZero)
    try chain.writeBytes([1, 2, 3], at: 70_000)
    try chain.flush()
    let after = try image.open().readAll()
    var model = ModelDisk([UInt8](repeating: 0, count: EncryptedImage.size))
    model.write([1, 2, 3], at: 70_000)
    #expect(ModelDisk.firstDifference(after, model.bytes) == nil)
  }
}
