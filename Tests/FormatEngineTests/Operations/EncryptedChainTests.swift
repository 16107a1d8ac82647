import TestSupport
import Testing

@testable import FormatEngine

/// Encrypted images below, above and beside others.
@Suite struct EncryptedChainTests {
  private let half = EncryptedImage.size / 2

  /// An image in a folder, filled with one byte from the start up to the middle of the disk and beyond its
  /// clusters' bounds.
  private func make(
    _ name: String, in folder: TemporaryFolder, filledWith byte: UInt8? = nil, _ options: [String: String],
    over backing: String? = nil, passphrase: String
  ) throws {
    var values = OptionValues(Qcow2Format.createOptions)
    for (name, text) in options { try values.set(name, to: text) }
    var request = CreateRequest(
      path: folder.file(name), virtualSize: UInt64(EncryptedImage.size),
      backing: backing.map { BackingReference(name: $0, format: "qcow2") }, options: values,
      references: ReferenceOpener())
    request.secrets.add(Secret(text: passphrase), id: "key")
    try Qcow2Format.create(on: try FileStore.create(folder.file(name), cache: .unflushed), request)
    guard let byte else { return }
    var opening = OpenOptions(format: "qcow2", access: .readWrite)
    opening.use(passphrase: passphrase)
    let chain = try ImageOpener.open(folder.file(name), opening)
    try chain.writeBytes([UInt8](repeating: byte, count: half), at: 1000)
    try chain.flush()
  }

  private static let luks = [
    "encrypt.format": "luks", "encrypt.key-secret": "key", "encrypt.iter-time": "1",
  ]

  @Test(arguments: [(true, false), (false, true), (true, true)])
  func eitherLayerMayBeEncrypted(_ lower: Bool, _ upper: Bool) throws {
    try TemporaryFolder.with { folder in
      try make("base", in: folder, filledWith: 7, lower ? Self.luks : [:], passphrase: "below")
      try make("top", in: folder, upper ? Self.luks : [:], over: "base", passphrase: "above")
      var options = OpenOptions(format: "qcow2", access: .readWrite)
      options.secrets.add(Secret(text: "below"), id: "low")
      options.secrets.add(Secret(text: "above"), id: "high")
      if upper { options.layerOptions["encrypt.key-secret"] = "high" }
      if lower {
        #expect(throws: EngineError.self) { try ImageOpener.open(folder.file("top"), options) }
        options.layerOptions["backing.encrypt.key-secret"] = "low"
      }
      let chain = try ImageOpener.open(folder.file("top"), options)
      var model = ModelDisk([UInt8](repeating: 0, count: EncryptedImage.size))
      model.write([UInt8](repeating: 7, count: half), at: 1000)
      #expect(ModelDisk.firstDifference(try chain.readAll(), model.bytes) == nil)
      let bytes = [UInt8](repeating: 9, count: 70_001)
      try chain.writeBytes(bytes, at: 65_000)
      try chain.flush()
      model.write(bytes, at: 65_000)
      #expect(ModelDisk.firstDifference(try chain.readAll(), model.bytes) == nil)
      #expect(try chain.locate(at: 65_000, limit: 1).extent.isEncrypted == upper)
      #expect(try chain.locate(at: 400_000, limit: 1).extent.isEncrypted == lower)
      try chain.close()
      let keys = (upper ? ",encrypt.key-secret=high" : "") + (lower ? ",backing.encrypt.key-secret=low" : "")
      let result = try ReferenceTool.qemuImg.run(
        [
          "convert", "-O", "raw", "--object", "secret,id=low,data=below", "--object",
          "secret,id=high,data=above", "--image-opts", "driver=qcow2,file.filename=top\(keys)", "judge.raw",
        ], folder: folder.path)
      _ = try result.expecting(0)
      #expect(ModelDisk.firstDifference(try Files.read(folder.file("judge.raw")), model.bytes) == nil)
    }
  }

  @Test func convertedCompareAsEqual() throws {
    let source = try EncryptedImage().open(.readWrite)
    try source.writeBytes([UInt8](repeating: 3, count: 200_000), at: 4000)
    try source.writeZeros(at: 65_536, count: 65_536)
    let bytes = MemoryStore([UInt8](repeating: 0, count: EncryptedImage.size))
    let plain = try ImageChain.over(bytes, format: RawFormat.self, access: .readWrite)
    let aes = try EncryptedImage(["format": "aes"]).open(.readWrite)
    for (from, to) in [(source, aes), (aes, plain)] {
      try Converter.convert(from: [from], to: to, ConvertOptions())
      let range: Range<UInt64> = 0..<UInt64(EncryptedImage.size)
      #expect(try Comparer.firstDifference(between: from, and: to, in: range) == nil)
      let own = try to.readBytes(at: 70_000, count: 1)
      try to.writeBytes([99], at: 70_000)
      #expect(try Comparer.firstDifference(between: from, and: to, in: range) == .content(at: 69_632))
      try to.writeBytes(own, at: 70_000)
    }
  }

  @Test func mapGivesNoPlaces() throws {
    let image = try EncryptedImage(others: ["preallocation": "metadata"])
    let chain = try image.open(.readWrite)
    try chain.writeBytes([UInt8](repeating: 3, count: 65_536), at: 65_536)
    var entries: [MapEntry] = []
    try Mapper.walk(chain, in: 0..<chain.virtualSize) { (entry) throws(EngineError) in entries.append(entry) }
    #expect(entries.allSatisfy { $0.offset == nil })
    #expect(entries.filter(\.isData).map { [$0.start, $0.length] } == [[65_536, 65_536]])
    #expect(entries.allSatisfy { $0.isData != $0.isZero })
  }

  /// Version 2 has no zero clusters: over a backing file they become encrypted zeros.
  @Test(arguments: ["luks", "aes"]) func zerosStayZerosInVersion2(_ method: String) throws {
    try TemporaryFolder.with { folder in
      try make("base", in: folder, filledWith: 7, [:], passphrase: "")
      let options = method == "luks" ? Self.luks : ["encryption": "on", "encrypt.key-secret": "key"]
      try make("top", in: folder, options, over: "base", passphrase: "above")
      var opening = OpenOptions(format: "qcow2", access: .readWrite)
      opening.use(passphrase: "above")
      let chain = try ImageOpener.open(folder.file("top"), opening)
      try chain.writeBytes([UInt8](repeating: 9, count: 70_000), at: 65_536)
      try chain.writeZeros(at: 3 * 65_536, count: 3 * 65_536)
      let before = try chain.readAll()
      var values = OptionValues(Qcow2Layer.amendOptions)
      try values.set("compat", to: "0.10")
      try chain.amend(values, AmendRequest())
      try chain.close()
      #expect(
        ModelDisk.firstDifference(try ImageOpener.open(folder.file("top"), opening).readAll(), before) == nil)
      let content = try ReferenceTool.content(
        of: "top", format: "qcow2", in: folder, passphrase: "above")
      #expect(ModelDisk.firstDifference(content, before) == nil)
    }
  }

  @Test func roomThatIsSetAsideHidesNothingBelow() throws {
    try TemporaryFolder.with { folder in
      try make("base", in: folder, filledWith: 7, [:], passphrase: "")
      var options = Self.luks
      options["extended_l2"] = "on"
      options["preallocation"] = "metadata"
      try make("top", in: folder, options, over: "base", passphrase: "above")
      var opening = OpenOptions(format: "qcow2", access: .readWrite)
      opening.use(passphrase: "above")
      let chain = try ImageOpener.open(folder.file("top"), opening)
      let below = try ImageOpener.open(folder.file("base")).readAll()
      #expect(ModelDisk.firstDifference(try chain.readAll(), below) == nil)
      var model = ModelDisk(below)
      model.write([1, 2, 3], at: 70_000)
      try chain.writeBytes([1, 2, 3], at: 70_000)
      #expect(ModelDisk.firstDifference(try chain.readAll(), model.bytes) == nil)
    }
  }

  @Test(arguments: ["off", "metadata", "full"]) func grownDiskEndsWithZeros(_ mode: String) throws {
    let image = try EncryptedImage()
    let chain = try image.open(.readWrite)
    try chain.writeBytes([UInt8](repeating: 5, count: 100_000), at: 900_000)
    let size = UInt64(EncryptedImage.size)
    try chain.resize(to: size + 300_032, preallocation: try #require(Preallocation(rawValue: mode)))
    try chain.flush()
    let after = try image.open().readBytes(at: size, count: 300_032)
    #expect(after.isZero)
    #expect(try image.open().readBytes(at: 900_000, count: 100_000).holdsOnly(5))
  }

  /// A snapshot is read with the key of its image.
  @Test func snapshotsAreRead() throws {
    for options in ["luks", "aes"] {
      let image = try EncryptedImage(["format": options])
      let chain = try image.open(.readWrite)
      try chain.writeBytes([UInt8](repeating: 1, count: 100_000), at: 0)
      try chain.flush()
      try TemporaryFolder.with { folder in
        let path = try folder.write(image.store.snapshot, to: "image")
        let names = [
          "--object", "secret,id=key,data=\(EncryptedImage.passphrase)", "--image-opts",
          "driver=qcow2,encrypt.key-secret=key,file.filename=\(path)",
        ]
        _ = try ReferenceTool.qemuImg.run(["snapshot", "-c", "before"] + names).expecting(0)
        try ReferenceTool.io(
          ["write -q -P 2 0 100000"], on: path, format: "qcow2", passphrase: EncryptedImage.passphrase)
        let after = try EncryptedImage(bytes: try Files.read(path)).open()
        let keeping = try #require(after.top as? any SnapshotKeeping)
        let record = try #require(try keeping.snapshots().first)
        let snapshot = after.replacing(layerAt: 0, with: try keeping.openSnapshot(record))
        #expect(try after.readBytes(at: 0, count: 100_000).holdsOnly(2))
        #expect(try snapshot.readBytes(at: 0, count: 100_000).holdsOnly(1))
      }
    }
  }
}
