import FormatEngine
import TestSupport
import Testing

/// Tables of a qcow2 image that are damaged or hostile: only the range that they describe is lost.
@Suite struct Qcow2TableTests {
  static let cluster: UInt64 = 65536
  /// L2 entries that cannot be true, for an image of version 3.
  static let impossible: [(name: String, entry: UInt64)] = [
    ("past the end of the file", 1 << 63 | 1 << 40),
    ("at the last possible offset", 1 << 63 | 0x00ff_ffff_ffff_0000),
    ("unaligned", 1 << 63 | 0x5_0200), ("packed, past the end", 1 << 62 | 1 << 45),
  ]

  /// The image with a wrong L2 entry for guest cluster 1.
  private func image(_ entry: UInt64, _ options: [String] = []) throws -> Qcow2Bytes {
    var image = try Qcow2Bytes.judged(options, hasSnapshot: false)
    image.put(entry, at: image.l2Offset + 8, width: 8)
    return image
  }

  @Test(arguments: 0..<impossible.count)
  func impossibleEntryLosesItsRangeOnly(_ index: Int) throws {
    let (name, entry) = Self.impossible[index]
    let chain = try image(entry).open()
    #expect(try chain.readBytes(at: 0, count: 65536).holdsOnly(10), "\(name)")
    #expect(try chain.readBytes(at: 2 * Self.cluster, count: 65536).holdsOnly(12), "\(name)")
    for (offset, count) in [
      (Self.cluster, 65536), (Self.cluster + 5, 1), (Self.cluster - 1, 2), (0, 200_000),
    ] {
      do throws(EngineError) {
        _ = try chain.readBytes(at: offset, count: count)
        Issue.record("\(name): read \(count) at \(offset)")
      } catch {
        #expect(error.code == .corrupt && !error.message.isEmpty, "\(name): \(error)")
      }
    }
    // The extent before it is still told, and ends where the damage begins.
    #expect(try chain.extent(at: 0, limit: chain.virtualSize).extent.length == Self.cluster)
    #expect(throws: EngineError.self) { try chain.extent(at: Self.cluster, limit: 1) }
    #expect(
      try chain.extent(at: 2 * Self.cluster, limit: chain.virtualSize - 2 * Self.cluster).extent.length > 0)
  }

  @Test func impossibleEntryIsNotWrittenThrough() throws {
    for (name, entry) in Self.impossible {
      let store = MemoryStore(try image(entry).bytes)
      let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
      try? chain.writeBytes([1, 2, 3], at: Self.cluster + 7)
      try? chain.flush()
      #expect(try chain.readBytes(at: 0, count: 65536).holdsOnly(10), "\(name)")
      #expect(try chain.readBytes(at: 2 * Self.cluster, count: 65536).holdsOnly(12), "\(name)")
      #expect(try store.byteCount() < 4 << 20, "\(name): the file has grown")
    }
  }

  @Test func zeroFlagInVersion2IsRefused() throws {
    let chain = try image(1, ["compat=0.10"]).open()
    #expect(throws: EngineError.self) { try chain.readBytes(at: Self.cluster, count: 1) }
    #expect(try chain.readBytes(at: 0, count: 1) == [10])
  }

  @Test(arguments: [1 << 40, 0x00ff_ffff_ffff_0000, 0x5_0200] as [UInt64])
  func impossibleL1EntryIsRefusedWhenRead(_ entry: UInt64) throws {
    var image = try Qcow2Bytes.judged(hasSnapshot: false)
    image.put(1 << 63 | entry, at: image.l1Offset, width: 8)
    do throws(EngineError) {
      _ = try image.open().readBytes(at: 0, count: 1)
      Issue.record("it was read")
    } catch { #expect(error.code == .corrupt && !error.message.isEmpty) }
  }

  @Test func subclusterBothStoredAndZeroIsRefused() throws {
    var image = try Qcow2Bytes.judged(["extended_l2=on"], hasSnapshot: false)
    image.put(1 << 32 | 1, at: image.l2Offset + 16 + 8, width: 8)
    let chain = try image.open()
    #expect(throws: EngineError.self) { try chain.readBytes(at: Self.cluster, count: 1) }
    #expect(try chain.readBytes(at: 0, count: 1) == [10])
  }

  @Test func subclusterStoredWithoutAClusterIsRefused() throws {
    var image = try Qcow2Bytes.judged(["extended_l2=on"], hasSnapshot: false)
    image.put(0, at: image.l2Offset + 16, width: 8)
    let chain = try image.open()
    #expect(throws: EngineError.self) { try chain.readBytes(at: Self.cluster, count: 1) }
    #expect(try chain.readBytes(at: 2 * Self.cluster, count: 1) == [12])
  }

  @Test func damagedPackedBytesAreRefused() throws {
    for options in [[], ["compression_type=zstd"]] {
      try TemporaryFolder.with { folder in
        let path = folder.file("image")
        let all = (["cluster_size=64k"] + options).joined(separator: ",")
        try ReferenceTool.qemuImg("create", "-q", "-f", "qcow2", "-o", all, path, "1M")
        try ReferenceTool.io(
          ["write -q -c -P 10 0 64k", "write -q -c -P 11 64k 64k", "write -q -P 12 128k 64k"], on: path,
          format: "qcow2")
        var image = Qcow2Bytes(bytes: try Files.read(path))
        let entry = image.number(at: image.l2Offset + 8, width: 8)
        let packed = Int(entry & ((1 << 54) - 1))
        for index in 0..<12 { image.bytes[packed + index] = 0xff }
        let chain = try image.open()
        #expect(try chain.readBytes(at: 0, count: 65536).holdsOnly(10))
        #expect(throws: EngineError.self) { try chain.readBytes(at: 65536, count: 65536) }
        #expect(throws: EngineError.self) { try chain.readBytes(at: 65536 + 9, count: 1) }
        #expect(try chain.readBytes(at: 131072, count: 65536).holdsOnly(12))
      }
    }
  }

  @Test func hugeEmptyDiskIsWalkedInLargePieces() throws {
    // 2^53 bytes of nothing: 2^32 clusters of 2 MiB would take hours to walk one by one. A million is looked at together.
    try TemporaryFolder.with { folder in
      let path = folder.file("image")
      try ReferenceTool.qemuImg("create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", path, "8P")
      try Deadline.within(seconds: 20, "huge disk") {
        let chain = try ImageOpener.open(path)
        #expect(try chain.allExtents().count == 4096)
        #expect(try chain.readBytes(at: chain.virtualSize - 512, count: 512).isZero)
      }
    }
  }
}
