import TestSupport
import Testing

@testable import FormatEngine

/// What is particular to opened QCOW images: entries, packed clusters, encryption, sizes, names.
@Suite struct QcowLayerTests {
  private var alone: OpenOptions {
    var options = OpenOptions(format: "qcow", access: .readWrite)
    options.backing = .ignore
    return options
  }

  /// L2 table of the first 2 MiB of a good image.
  private static func table(_ image: ImageBytes) -> Int { Int(image.number(at: 48, width: 8)) }

  @Test(arguments: [4097, 1 << 40, 1, 47, UInt64.max, 1 << 63, 1 << 63 | 4096] as [UInt64])
  func damagedEntryFailsForItsRangeOnly(_ value: UInt64) throws {
    var image = try QcowHeaderTests.good()
    image.put(value, at: Self.table(image) + 16 * 8, width: 8)
    let chain = try image.open()
    #expect(throws: EngineError.self) { try chain.readBytes(at: 65536, count: 1) }
    #expect(try chain.readBytes(at: 0, count: 65536).isZero)
    #expect(try chain.readBytes(at: 65536 + 4096, count: 1) == [11])
  }

  /// An entry that leads to the header or the L1 table would let a guest write them.
  @Test(arguments: [0, 512] as [UInt64]) func damagedEntryDoesNotTakeGuestBytesIntoATable(_ place: UInt64)
    throws
  {
    var image = try QcowHeaderTests.good()
    // A table that begins in one sector and ends in the next.
    if place == 512 {
      let entries = Array(image.bytes[48..<56])
      image.bytes.replaceSubrange(508..<516, with: entries)
      image.put(508, at: 40, width: 8)
    }
    image.put(place == 0 ? 512 : place, at: Self.table2(image) + 16 * 8, width: 8)
    if place == 0 {
      // The name of a backing file in the way.
      image.put(600, at: 8, width: 8)
      image.put(3, at: 16, width: 4)
    }
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(store, format: QcowFormat.self, access: .readWrite)
    #expect(throws: EngineError.self) { try chain.writeBytes([UInt8](repeating: 1, count: 200), at: 65536) }
    #expect(throws: EngineError.self) { try chain.writeZeros(at: 65536, count: 4096) }
    try? chain.close()
    #expect(store.snapshot == image.bytes)
  }

  /// An L2 table that lies over the L1 table would let entries of the one change the other.
  @Test func tableThatLiesOverTheFirstTableIsNotWrittenTo() throws {
    var image = try QcowHeaderTests.good()
    let l1 = image.number(at: 40, width: 8)
    image.put(l1 + 8, at: Int(l1), width: 8)
    // Longer than one entry, so that a table can begin in it.
    image.put(5 << 20, at: 24, width: 8)
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(store, format: QcowFormat.self, access: .readWrite)
    #expect(throws: EngineError.self) { try chain.writeBytes([1], at: 8192) }
    try? chain.close()
    #expect(Array(store.snapshot.prefix(image.bytes.count)) == image.bytes)
  }

  /// A damaged entry's cluster, once nothing refers to it, is not handed out where it lies over a table.
  @Test func placeOfATableIsNotReusedAsACluster() throws {
    var image = try QcowHeaderTests.good()
    let l1 = Int(image.number(at: 40, width: 8))
    // The L1 table where a cluster might be.
    let entries = Array(image.bytes[l1..<l1 + 8])
    image.bytes.pad(toMultipleOf: 4096)
    let place = image.bytes.count
    image.bytes += entries + [UInt8](repeating: 0, count: 4088)
    let table = Self.table2(image)
    image.put(UInt64(place), at: 40, width: 8)
    image.put(UInt64(place), at: table + 16 * 8, width: 8)
    let store = MemoryStore(image.bytes)
    let chain = try packingCluster16(in: store)
    try chain.writeBytes([UInt8](repeating: 9, count: 8192), at: 500 * 1024)
    try chain.close()
    #expect(Array(store.snapshot[place..<place + 8]) == entries)
    #expect(try chain.readBytes(at: 65536, count: 4096).holdsOnly(3))
  }

  /// As in QEMU, a sector that is not whole is left out.
  @Test(arguments: [1_000_077, 4095, 513] as [UInt64]) func oddSizesAreTheJudges(_ size: UInt64) throws {
    try TemporaryFolder.with { folder in
      let image = try QcowHeaderTests.good().with(size, at: 24, width: 8)
      let path = try folder.write(image.bytes, to: "image")
      let content = try ReferenceTool.content(of: path, format: "qcow", in: folder)
      #expect(try image.open().readAll() == content)
    }
  }

  private static func table2(_ image: ImageBytes) -> Int {
    Int(image.number(at: Int(image.number(at: 40, width: 8)), width: 8))
  }

  /// Every width of clusters and tables, which `create` does not offer: the judge reads what is written.
  @Test(arguments: [(9, 6), (9, 13), (12, 6), (14, 9), (16, 13), (16, 6)])
  func imagesOfAllGeometriesAreWritten(_ clusterBits: Int, _ l2Bits: Int) throws {
    try TemporaryFolder.with { folder in
      let header = QcowHeader(
        virtualSize: 1 << 20, clusterBits: UInt8(clusterBits), l2Bits: UInt8(l2Bits), l1Offset: 48)
      var bytes = header.serialised()
      bytes += [UInt8](repeating: 0, count: Int(header.l1ByteCount))
      let path = try folder.write(bytes, to: "image")
      var random = SeededRandom.fromEnvironment(or: 71)
      var model = ModelDisk(byteCount: 1 << 20)
      let chain = try ImageOpener.open(path, alone)
      // Text that repeats at a distance of more than 4 KiB, which packed bytes must not refer to.
      let far = random.bytes(6000) + random.bytes(100)
      let layer = try #require(chain.top as? any CompressedWriting)
      let packer = try layer.makePacker()
      let unit = Int(layer.compressionUnit)
      for index in 0..<4 {
        let content = Array((far + far + far + [UInt8](repeating: 1, count: 65536)).prefix(unit))
        var packed = [UInt8](repeating: 0, count: unit - 1)
        let count = try pack(content, into: &packed, packer)
        guard let count else { continue }
        let offset = index * 3 * unit
        try store(Array(packed.prefix(count)), at: UInt64(offset), layer)
        model.write(content, at: offset)
      }
      for _ in 0..<20 {
        let range = random.range(in: 1 << 20, most: 100_000, unit: unit)
        let content = random.bytes(range.count)
        try chain.writeBytes(content, at: UInt64(range.lowerBound))
        model.write(content, at: range.lowerBound)
      }
      try chain.close()
      #expect(try ImageOpener.open(path).readAll() == model.bytes)
      #expect(try ReferenceTool.content(of: path, format: "qcow", in: folder) == model.bytes)
      let report = try #require(chain.top as? any Checkable).check(progress: .none)
      #expect(report.corruptions == 0, "\(report.findings)")
    }
  }

  private func pack(_ content: [UInt8], into packed: inout [UInt8], _ packer: any ClusterPacker) throws
    -> Int?
  {
    var result: Result<Int?, EngineError> = .success(nil)
    unsafe content.withUnsafeBytes { source in
      unsafe packed.withUnsafeMutableBytes { target in
        do throws(EngineError) { result = .success(unsafe try packer.pack(source, into: target)) } catch {
          result = .failure(error)
        }
      }
    }
    return try result.get()
  }

  private func store(_ bytes: [UInt8], at offset: UInt64, _ layer: any CompressedWriting) throws {
    var failure: EngineError?
    unsafe bytes.withUnsafeBytes { raw in
      do throws(EngineError) {
        unsafe try layer.storeCompressed(
          raw, pieces: [PackedPiece(guestOffset: offset, byteCount: bytes.count)])
      } catch { failure = error }
    }
    if let failure { throw failure }
  }

  @Test func encryptedImageIsTheJudgesAndNeedsItsKey() throws {
    try TemporaryFolder.with { folder in
      let path = folder.file("image")
      let secret = ["--object", "secret,id=key,data=a long passphrase of more than 16 bytes"]
      try ReferenceTool.qemuImg.run(
        ["create", "-q", "-f", "qcow"] + secret + [
          "-o", "encrypt.format=aes,encrypt.key-secret=key", path, "1M",
        ]
      ).expecting(0)
      let passphrase = "a long passphrase of more than 16 bytes"
      try ReferenceTool.io(
        ["write -q -P 7 100k 50k"], on: path, format: "qcow", passphrase: passphrase)
      #expect(throws: EngineError.missingKey) { try ImageOpener.open(path, OpenOptions(format: "qcow")) }
      var options = OpenOptions(format: "qcow", access: .readWrite)
      options.use(passphrase: passphrase)
      let chain = try ImageOpener.open(path, options)
      #expect(try chain.readBytes(at: 100 << 10, count: 50 << 10).holdsOnly(7))
      try chain.writeBytes([1, 2, 3], at: (120 << 10) + 5)
      try chain.writeZeros(at: 104 << 10, count: 8 << 10)
      try chain.writeZeros(at: (140 << 10) + 100, count: 100)
      try chain.close()
      var model = ModelDisk(byteCount: 1 << 20)
      model.write([UInt8](repeating: 7, count: 50 << 10), at: 100 << 10)
      model.write([1, 2, 3], at: (120 << 10) + 5)
      model.writeZeros(at: 104 << 10, count: 8 << 10)
      model.writeZeros(at: (140 << 10) + 100, count: 100)
      #expect(
        try ReferenceTool.content(of: path, format: "qcow", in: folder, passphrase: passphrase) == model.bytes
      )
      var wrong = OpenOptions(format: "qcow")
      wrong.use(passphrase: "another one")
      #expect(try ImageOpener.open(path, wrong).readBytes(at: 100 << 10, count: 4) != [7, 7, 7, 7])
    }
  }

  /// Sizes at which the L1 table has to move, and at which it does not; what was cut off does not come back.
  @Test(arguments: [false, true]) func diskGrowsAndShrinks(_ hasBacking: Bool) throws {
    try TemporaryFolder.with { folder in
      let path = folder.file("image")
      var random = SeededRandom.fromEnvironment(or: 72)
      try folder.write([UInt8](repeating: 5, count: 1_100_288), to: "base.raw")
      let below = hasBacking ? ["-b", "base.raw", "-F", "raw"] : []
      try ReferenceTool.qemuImg.run(
        ["create", "-q", "-f", "qcow"] + below + [path, "1M"], folder: folder.path
      ).expecting(0)
      let chain = try ImageOpener.open(path, OpenOptions(format: "qcow", access: .readWrite)).unlocked()
      var model = ModelDisk([UInt8](repeating: hasBacking ? 5 : 0, count: 1 << 20))
      for size in [1 << 20, 5 << 20, 700_416, 3 << 20, 512, 4 << 20] {
        try chain.resize(to: UInt64(size))
        model = ModelDisk(
          Array(model.bytes.prefix(size)) + [UInt8](repeating: 0, count: max(0, size - model.byteCount)))
        #expect(chain.virtualSize == size)
        for _ in 0..<4 {
          let range = random.range(in: size, most: min(size, 100_000), unit: 4096)
          let content = random.bytes(range.count)
          try chain.writeBytes(content, at: UInt64(range.lowerBound))
          model.write(content, at: range.lowerBound)
        }
        try chain.flush()
        #expect(ModelDisk.firstDifference(try chain.readAll(), model.bytes) == nil, "\(size)")
        let judged = try ReferenceTool.content(of: path, format: "qcow", in: folder)
        #expect(ModelDisk.firstDifference(judged, model.bytes) == nil, "\(size)")
        let report = try #require(chain.top as? any Checkable).check(progress: .none)
        #expect(report.corruptions == 0, "\(report.findings)")
      }
      #expect(throws: EngineError.self) { try chain.resize(to: 0) }
      #expect(throws: EngineError.self) { try chain.resize(to: 1 << 60) }
      try chain.close()
    }
  }

  @Test func anotherBackingFileIsRecordedAndTakenAway() throws {
    try TemporaryFolder.with { folder in
      let path = folder.file("image")
      try ReferenceTool.qemuImg("create", "-q", "-f", "qcow", path, "1M", folder: folder.path)
      try ReferenceTool.io(["write -q -P 7 100k 50k"], on: path, format: "qcow")
      for name in ["a", "some/longer name", String(repeating: "n", count: 1023), "b"] {
        let chain = try ImageOpener.open(path, alone)
        try Rebaser.setBacking(of: chain, to: BackingReference(name: name, format: "raw"))
        #expect(try ImageOpener.open(path, alone).top.backing == BackingReference(name: name))
        let info = try ReferenceTool.qemuImg("info", path, folder: folder.path).stdoutText
        #expect(info.contains("backing file: \(name)"))
      }
      let chain = try ImageOpener.open(path, alone)
      #expect(throws: EngineError.self) {
        try Rebaser.setBacking(of: chain, to: BackingReference(name: String(repeating: "n", count: 1024)))
      }
      try chain.writeBytes([9], at: 0)
      try Rebaser.setBacking(of: chain, to: nil)
      #expect(try ImageOpener.open(path, alone).top.backing == nil)
      let content = try ReferenceTool.content(of: path, format: "qcow", in: folder)
      #expect(content[0] == 9 && content[100 << 10] == 7)
    }
  }

  @Test func emptiedImageReadsAsWhatLiesBelow() throws {
    try TemporaryFolder.with { folder in
      try folder.write([UInt8](repeating: 5, count: 1 << 20), to: "base.raw")
      let path = folder.file("image")
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qcow", "-b", "base.raw", "-F", "raw", path, folder: folder.path)
      let chain = try ImageOpener.open(path, OpenOptions(format: "qcow", access: .readWrite))
      try chain.writeBytes([UInt8](repeating: 1, count: 300_000), at: 1000)
      try Committer.empty(chain)
      #expect(try Files.read(path).count < 1024)
      #expect(try chain.readAll().holdsOnly(5))
      #expect(try ReferenceTool.content(of: path, format: "qcow", in: folder).holdsOnly(5))
    }
  }

  /// The image, open, in which the cluster at 64 KiB was written again, packed.
  private func packingCluster16(in store: MemoryStore) throws -> ImageChain {
    let chain = try ImageChain.over(store, format: QcowFormat.self, access: .readWrite)
    let layer = try #require(chain.top as? any CompressedWriting)
    var packed = [UInt8](repeating: 0, count: 4095)
    let count = try #require(
      try pack([UInt8](repeating: 3, count: 4096), into: &packed, try layer.makePacker()))
    try self.store(Array(packed.prefix(count)), at: 65536, layer)
    try chain.flush()
    return chain
  }

  /// Two entries lead to one cluster: what one of them leaves is still the other's.
  @Test func sharedClusterIsNotReused() throws {
    var image = try QcowHeaderTests.good()
    let table = Self.table2(image)
    image.put(image.number(at: table + 16 * 8, width: 8), at: table + 200 * 8, width: 8)
    let store = MemoryStore(image.bytes)
    let chain = try packingCluster16(in: store)
    try chain.writeBytes([UInt8](repeating: 9, count: 8192), at: 500 * 1024)
    try chain.close()
    #expect(try chain.readBytes(at: 65536, count: 4096).holdsOnly(3))
    #expect(try chain.readBytes(at: 200 * 4096, count: 4096).holdsOnly(11))
    #expect(try chain.readBytes(at: 500 * 1024, count: 8192).holdsOnly(9))
  }

  /// In a sound image the room of what was written again, packed, is used for the next cluster.
  @Test func leftClusterIsReused() throws {
    let image = try QcowHeaderTests.good()
    let host = image.number(at: Self.table2(image) + 16 * 8, width: 8)
    let store = MemoryStore(image.bytes)
    let chain = try packingCluster16(in: store)
    try chain.writeBytes([UInt8](repeating: 9, count: 4096), at: 500 * 1024)
    #expect(try chain.locate(at: 500 * 1024, limit: 1).extent.hostOffset == host)
    try chain.close()
  }
}
