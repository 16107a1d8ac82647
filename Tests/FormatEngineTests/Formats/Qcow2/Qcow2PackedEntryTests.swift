import TestSupport
import Testing

@testable import FormatEngine

/// Places of packed clusters: how far an entry can point, and what becomes of room that gets no entry.
@Suite struct Qcow2PackedEntryTests {
  /// Width of the place in an entry, by cluster bits (qcow2.txt, "Compressed Clusters Descriptor"); the file ends at 2^56.
  static let widths: [(clusterBits: UInt64, placeBits: UInt64)] = [
    (9, 56), (12, 56), (14, 56), (16, 54), (21, 49),
  ]

  @Test(arguments: widths.indices) func entriesGiveBackWhatWasPutIn(_ index: Int) throws {
    let (clusterBits, placeBits) = Self.widths[index]
    let geometry = Qcow2Geometry(clusterBits: clusterBits, hasSubclusters: false)
    let last = (1 as UInt64) << placeBits - 1
    for byteCount in [1, 511, 512, geometry.clusterSize - 1] as [UInt64] {
      for place in [1, 512, 513, last / 2, last - 511, last] {
        let entry = try #require(Qcow2L2Entry.compressed(at: place, byteCount: byteCount, geometry))
        #expect(entry.isCompressed && !entry.isCopied)
        let packed = entry.packed(geometry)
        #expect(packed.hostOffset == place)
        // As many sectors as the bytes touch, and none more.
        let end = (place + byteCount).aligned(upTo: 512)
        #expect(packed.hostOffset + packed.byteCount == end, "\(byteCount) bytes at \(place)")
      }
      for place in [last + 1, last + 513, 1 << 56, 1 << 61, .max] {
        #expect(Qcow2L2Entry.compressed(at: place, byteCount: byteCount, geometry) == nil, "\(place)")
      }
    }
  }

  /// The place, the number of sectors, or both, as large as an entry of the image can say.
  @Test(arguments: DamageBase.allCases.filter { $0 != .dataFile }) func entriesThatLeadFarAwayAreErrors(
    _ base: DamageBase
  ) throws {
    let good = try base.image()
    let placeBits = 62 - (UInt64(good.clusterSize.trailingZeroBitCount) - 8)
    let places = ((1 as UInt64) << placeBits) - 1
    let sectors = ((1 as UInt64) << 62) - 1 - places
    for raw in [places, places | sectors, 1 << (placeBits - 1), 1 << 56, (1 << 56) - 1] as [UInt64] {
      var image = good
      image.put(1 << 62 | raw, at: image.l2Entry(1), width: 8)
      let chain = try image.open()
      let size = UInt64(good.clusterSize)
      #expect(throws: EngineError.self) { try chain.readBytes(at: size, count: 1) }
      #expect(throws: EngineError.self) { try chain.readBytes(at: size, count: Int(size)) }
      #expect(try chain.readBytes(at: 2 * size, count: Int(size)).holdsOnly(12))
      let report = try #require(chain.top as? any Checkable).check(progress: .none)
      #expect(report.corruptions > 0, "\(raw)")
      // Whoever lets go of it gives nothing back that others use.
      let store = MemoryStore(image.bytes)
      let writing = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
      try? writing.discard(at: size, count: size)
      try? writing.close()
      let after = try Qcow2Bytes(bytes: store.snapshot).open()
      #expect(try after.readBytes(at: 2 * size, count: Int(size)).holdsOnly(12))
      #expect(store.snapshot.count < image.bytes.count + 8 * Int(size), "it grew")
    }
  }

  /// A file of 512 TiB whose clusters are 2 MiB large: from there on no entry leads to packed bytes (QEMU's 77d6a21558).
  @Test func roomThatNoEntryCanLeadToIsRefused() throws {
    let store = SparseStore(atMost: 1 << 60)
    var values = OptionValues(Qcow2Format.createOptions)
    try values.set("cluster_size", to: "2M")
    try Qcow2Format.create(
      on: store,
      CreateRequest(path: "image", virtualSize: 16 << 20, options: values, references: ReferenceOpener()))
    let unit = 2 << 20
    let before = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
    try before.writePacked([UInt8](repeating: 1, count: unit), at: 0)
    try before.writeBytes([UInt8](repeating: 2, count: unit), at: UInt64(unit))
    try before.close()
    let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
    let layer = try #require(chain.top as? Qcow2Layer)
    // As if all before it were in use. The first cluster there becomes a refcount block.
    layer.state.withLock { $0.allocator.beginSearching(at: 1 << 28) }
    for _ in 0..<2 {
      do throws(EngineError) {
        try chain.writePacked([UInt8](repeating: 3, count: 2 * unit), at: 0)
        Issue.record("it has an entry")
      } catch { #expect(error.code == .tooLarge, "\(error.message)") }
    }
    // What is not packed still has room there.
    try chain.writeBytes([UInt8](repeating: 4, count: unit), at: UInt64(2 * unit))
    try chain.close()
    #expect(try store.byteCount() > 1 << 49)
    let after = try ImageChain.over(store, format: Qcow2Format.self)
    for (cluster, byte) in [(0, 1), (1, 2), (2, 4), (3, 0)] as [(Int, UInt8)] {
      #expect(
        try after.readBytes(at: UInt64(cluster * unit), count: unit).holdsOnly(byte), "cluster \(cluster)")
    }
    // A check of all clusters before would take minutes: here those count that have something in them.
    let counts = try #require(after.top as? Qcow2Layer).state.withLock { (state) throws(EngineError) in
      var counts: [UInt64] = []
      for cluster in (1 << 28)..<(1 << 28 + 8) as Range<UInt64> {
        counts.append(try state.refcounts.count(of: cluster))
      }
      return counts
    }
    #expect(counts.reduce(0, +) == 2, "\(counts)")
  }

  /// Each call fails once, with the host being full: what got no entry is given back, and what goes on behind it later is not
  /// in a cluster of somebody else.
  @Test(arguments: [DamageBase.compressed, .smallClusters, .subclusters, .oneBit])
  func aFailureWhilePackingLeaksNothing(_ base: DamageBase) throws {
    let good = try base.image()
    let size = base.clusterSize
    let packed = { (byte: UInt8) in [UInt8](repeating: byte, count: 4 * size) }
    var failing = 0
    while true {
      let memory = MemoryStore(good.bytes)
      let store = FaultStore(memory)
      let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
      let before = try chain.readAll()
      var failed = false
      // Not from the tables: those are written by flushes.
      store.arm(failing: failing, of: [.write, .read], errno: 28)
      do throws(EngineError) { try chain.writePacked(packed(0x77), at: UInt64(8 * size)) } catch {
        failed = true
      }
      store.arm(failing: nil)
      let story: Comment = "call \(failing)"
      if failed { #expect(try chain.readAll() == before, story) }
      try chain.writeBytes([UInt8](repeating: 0x55, count: 2 * size), at: UInt64(12 * size))
      try chain.writePacked(packed(0x66), at: UInt64(8 * size))
      try chain.close()
      let after = try Qcow2Bytes(bytes: memory.snapshot).open()
      #expect(try after.readBytes(at: UInt64(8 * size), count: 4 * size).holdsOnly(0x66), story)
      #expect(try after.readBytes(at: UInt64(12 * size), count: 2 * size).holdsOnly(0x55), story)
      #expect(try after.readBytes(at: 0, count: 8 * size).elementsEqual(before[..<(8 * size)]), story)
      let report = try #require(after.top as? any Checkable).check(progress: .none)
      #expect(report.corruptions == 0 && report.leaks == 0, "call \(failing): \(report.findings)")
      if !failed { break }
      failing += 1
    }
    #expect(failing > 0)
  }
}
