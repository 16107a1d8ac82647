import FormatEngine
import TestSupport
import Testing

/// Internal snapshots, good and hostile.
@Suite struct Qcow2SnapshotTests {
  private func keeping(_ chain: ImageChain) throws -> any SnapshotKeeping {
    try #require(chain.top as? any SnapshotKeeping)
  }

  @Test(arguments: [[], ["compat=0.10"], ["extended_l2=on"]])
  func snapshotReadsAsTheDiskWas(_ options: [String]) throws {
    let chain = try Qcow2Bytes.judged(options).open()
    let layer = try keeping(chain)
    let record = try #require(try layer.snapshots().first)
    #expect(record.name == "before" && record.id == "1" && record.virtualSize == 1 << 20)
    #expect(record.dateSeconds > 1_500_000_000)
    let snapshot = chain.replacing(layerAt: 0, with: try layer.openSnapshot(record))
    #expect(try snapshot.readBytes(at: 0, count: 65536).holdsOnly(10))
    #expect(try chain.readBytes(at: 0, count: 65536).holdsOnly(20))
    #expect(try snapshot.readBytes(at: 65536, count: 65536).holdsOnly(11))
    #expect(throws: EngineError.self) { try snapshot.writeBytes([1], at: 0) }
  }

  @Test func snapshotThatIsNotThereIsNotFound() throws {
    let layer = try keeping(try Qcow2Bytes.judged().open())
    var record = try #require(try layer.snapshots().first)
    record.name = "other"
    #expect(throws: EngineError.self) { try layer.openSnapshot(record) }
  }

  /// Fields of the table's first entry.
  static let fields = [
    HeaderField(name: "L1 offset", offset: 0, width: 8, limits: [65536, 1 << 40, 1 << 63]),
    HeaderField(name: "L1 size", offset: 8, width: 4, limits: [1, 4 << 20]),
    HeaderField(name: "id length", offset: 12, width: 2, limits: [1]),
    HeaderField(name: "name length", offset: 14, width: 2, limits: [6]),
    HeaderField(name: "seconds", offset: 16, width: 4, limits: []),
    HeaderField(name: "nanoseconds", offset: 20, width: 4, limits: [999_999_999]),
    HeaderField(name: "VM clock", offset: 24, width: 8, limits: []),
    HeaderField(name: "VM state size", offset: 32, width: 4, limits: []),
    HeaderField(name: "extra length", offset: 36, width: 4, limits: [8, 16, 24, 1024]),
    HeaderField(name: "long VM state size", offset: 40, width: 8, limits: []),
    HeaderField(name: "disk size", offset: 48, width: 8, limits: [1 << 20, 1 << 40, 1 << 62, 1 << 63]),
  ]

  @Test(arguments: fields)
  func anyValueInTheSnapshotTableIsReadOrRefused(_ field: HeaderField) throws {
    for options in [[], ["cluster_size=512"]] {
      let good = try Qcow2Bytes.judged(options)
      for value in field.values {
        try good.with(value, at: good.snapshotsOffset + field.offset, width: field.width)
          .useEverything("snapshot \(field.name) = \(value) \(options)")
      }
    }
  }

  @Test func snapshotTableCutOffIsRefused() throws {
    var image = try Qcow2Bytes.judged()
    image.bytes.removeLast(image.bytes.count - image.snapshotsOffset)
    if let chain = try? image.open() {
      let layer = try keeping(chain)
      #expect(throws: EngineError.self) { try layer.snapshots() }
    }
  }

  @Test func moreSnapshotsThanThereAreIsRefusedAtOnce() throws {
    try Deadline.within(seconds: 20, "snapshot list") {
      let image = try Qcow2Bytes.judged().with(65536, at: 60, width: 4)
      if let chain = try? image.open() {
        let layer = try keeping(chain)
        #expect(throws: EngineError.self) { try layer.snapshots() }
      }
    }
  }

  @Test func hugeSnapshotWithAShortTableIsReadAtOnce() throws {
    let good = try Qcow2Bytes.judged(["cluster_size=512"])
    let image = good.with(UInt64(Int64.max), at: good.snapshotsOffset + 48, width: 8)
    try Deadline.within(seconds: 20, "snapshot of 8 EiB with clusters of 512 bytes") {
      let chain = try image.open()
      let layer = try keeping(chain)
      let record = try #require(try layer.snapshots().first)
      guard let opened = try? layer.openSnapshot(record) else { return }
      let snapshot = chain.replacing(layerAt: 0, with: opened)
      #expect(try snapshot.readBytes(at: 0, count: 512).holdsOnly(10))
      _ = try snapshot.extent(at: 1 << 40, limit: snapshot.virtualSize - 1 << 40)
    }
  }
}
