import TestSupport
import Testing

@testable import FormatEngine

/// Damaged images: a change of the snapshots is refused, and the image stays as it is.
@Suite struct Qcow2SnapshotDamageTests {
  /// Where something is damaged, with what, and which changes meet it.
  enum Place: CaseIterable {
    case snapshotL1Offset, snapshotL1Count, snapshotDiskSize, activeL2Entry, activeL1Entry, snapshotL2Entry,
      refcount
  }

  @Test(arguments: Place.allCases)
  func damageIsAnErrorAndTheImageStays(_ place: Place) throws {
    for (bytes, changes) in try damaged(place) {
      for change in changes {
        let store = MemoryStore(bytes)
        try Deadline.within(seconds: 20, "\(change) with damage of \(place)") {
          let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
          let layer = try #require(chain.top as? any SnapshotChanging)
          #expect(throws: EngineError.self, "\(change), \(place)") {
            try SnapshotChange.perform(change, layer)
          }
          try? chain.close()
        }
        let now = Array(store.snapshot[..<bytes.count])
        #expect(ModelDisk.firstDifference(now, bytes) == nil, "\(change), \(place)")
      }
    }
  }

  private func damaged(_ place: Place) throws -> [([UInt8], [String])] {
    // Nothing is free in front of the end of the file: so all that may be written lies behind it.
    let good = try Qcow2Bytes.judged()
    let entry = good.snapshotsOffset
    let all = ["create", "apply", "delete"]
    func with(_ values: [UInt64], at offset: Int, width: Int = 8, _ changes: [String]) -> [(
      [UInt8], [String]
    )] {
      values.map { (good.with($0, at: offset, width: width).bytes, changes) }
    }
    switch place {
    case .snapshotL1Offset: return with([0x200, 1 << 40, 1 << 63, .max], at: entry, all)
    case .snapshotL1Count: return with([0x1000_0000, 0xffff_ffff, 4 << 20], at: entry + 8, width: 4, all)
    case .snapshotDiskSize:
      return with([1 << 63, .max], at: entry + 48, all)
        + with([1 << 62], at: entry + 48, ["apply"])
    case .activeL2Entry:
      // Past the end, not aligned, past all refcount blocks, a packed one past the end.
      let values: [UInt64] = [
        0x8000_00ff_ffff_0000, 0x8000_0000_0005_0200, 0xbfff_ffff_ffff_0000, 0x4000_0100_0000_0000,
      ]
      return with(values, at: good.l2Offset, ["create", "apply"])
    case .activeL1Entry:
      return with([0x8000_00ff_ffff_0000, 0x8000_0000_0005_0200], at: good.l1Offset, all)
    case .snapshotL2Entry:
      let table = Int(good.number(at: Int(good.number(at: entry, width: 8)), width: 8) & 0xff_ffff_ffff)
      return with([0x00ff_ffff_0000, 0x50200], at: table, ["apply", "delete"])
    case .refcount:
      // Of the data cluster that both share.
      let block = Int(good.number(at: Int(good.number(at: 48, width: 8)), width: 8))
      let data = Int(good.number(at: good.l2Offset + 8, width: 8) & 0x00ff_ffff_ffff_fe00) / 65536
      return with([0], at: block + data * 2, width: 2, all)
    }
  }

  /// A snapshot whose table is smaller or larger than the disk's, which is no damage.
  @Test(arguments: [0, 1, 4, 32, 1000] as [UInt64])
  func snapshotsWithTablesOfOtherSizesCanBeAppliedAndDeleted(_ count: UInt64) throws {
    // 512-byte clusters: 32 entries for 1 MiB.
    var image = try Qcow2Bytes.judged(["cluster_size=512"])
    let old = Int(image.number(at: image.snapshotsOffset + 8, width: 4))
    #expect(old == 32)
    // Fewer entries forget tables, which are leaked then; more need another place.
    if count > 32 { try image.moveSnapshotL1(toTableOf: Int(count)) }
    image.put(count, at: image.snapshotsOffset + 8, width: 4)
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
    let layer = try #require(chain.top as? any SnapshotChanging)
    let record = try #require(try layer.snapshots().first)
    let content = try chain.replacing(layerAt: 0, with: try layer.openSnapshot(record)).readAll()
    try layer.applySnapshot(record)
    #expect(try chain.readAll() == content)
    try layer.createSnapshot(named: "again", at: SnapshotDate(seconds: 1, nanoseconds: 0))
    try layer.deleteSnapshot(record)
    #expect(try chain.readAll() == content)
    let report = try #require(chain.top as? any Checkable).check(progress: .none)
    #expect(report.corruptions == 0, "\(report.findings.prefix(3))")
  }

  /// Going back changes the disk's size; coming again does, too.
  @Test(arguments: [["cluster_size=512"], [], ["extended_l2=on"]])
  func theDisksSizeComesBackWithTheSnapshot(_ options: [String]) throws {
    try TemporaryFolder.with { folder in
      let path = try folder.write(try Qcow2Bytes.judged(options).bytes, to: "image")
      try ReferenceTool.qemuImg("resize", "-q", path, "5M")
      try ReferenceTool.io(["write -q -P 44 4M 100k"], on: path, format: "qcow2")
      let chain = try ImageOpener.open(path, OpenOptions(format: "qcow2", access: .readWrite)).unlocked()
      let layer = try #require(chain.top as? any SnapshotChanging)
      let small = try #require(try layer.snapshots().first)
      let large = try layer.createSnapshot(named: "large", at: SnapshotDate(seconds: 1, nanoseconds: 0))
      #expect(large.virtualSize == 5 << 20)
      for (record, byteCount) in [(small, 1 << 20), (large, 5 << 20), (small, 1 << 20)] {
        let content = try chain.replacing(layerAt: 0, with: try layer.openSnapshot(record)).readAll()
        try chain.changingWhole { () throws(EngineError) in try layer.applySnapshot(record) }
        #expect(content.count == byteCount && chain.virtualSize == UInt64(byteCount))
        #expect(try chain.readAll() == content)
        let judged = try ReferenceTool.content(of: path, format: "qcow2", in: folder)
        #expect(ModelDisk.firstDifference(judged, content) == nil)
      }
      try chain.close()
      let verdict = try ReferenceTool.check(path)
      #expect(verdict.corruptions == 0 && verdict.leaks == 0, "\(verdict.text)")
    }
  }
}

extension Qcow2Bytes {
  /// Moves the L1 table of the first snapshot to a larger place.
  fileprivate mutating func moveSnapshotL1(toTableOf count: Int) throws {
    let store = MemoryStore(bytes)
    let layer = try #require(
      try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite).top as? Qcow2Layer)
    let old = Int(number(at: snapshotsOffset, width: 8))
    let oldByteCount = Int(number(at: snapshotsOffset + 8, width: 4)) * 8
    var table = Array(bytes[old..<old + oldByteCount])
    table += [UInt8](repeating: 0, count: count * 8 - oldByteCount)
    let place = try layer.rewrite { (rewrite) throws(EngineError) in
      try rewrite.remove(rewrite.clusters(at: UInt64(old), byteCount: UInt64(oldByteCount)))
      return try rewrite.allocate(bytes: table)
    }
    bytes = store.snapshot
    put(place, at: snapshotsOffset, width: 8)
  }
}
