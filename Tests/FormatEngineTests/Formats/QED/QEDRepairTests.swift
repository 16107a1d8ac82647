import TestSupport
import Testing

@testable import FormatEngine

/// Damage that a check finds, and what a repair makes of it.
@Suite struct QEDRepairTests {
  /// Places of a good image of 1 MiB: L1 table at 64 KiB, the L2 table, the entries of clusters 1 and 5 in it.
  struct Damage: Sendable, CustomTestStringConvertible {
    var name: String
    var corruptions: UInt64
    var leaks: UInt64 = 0
    /// Corruptions that a repair cannot mend.
    var lasting: UInt64 = 0
    var change: @Sendable (inout ImageBytes, _ l2: Int) -> Void
    var testDescription: String { name }
  }

  static let damages = [
    Damage(name: "none", corruptions: 0) { _, _ in },
    Damage(name: "cluster past the end", corruptions: 1, leaks: 1) { $0.put(1 << 40, at: $1 + 8, width: 8) },
    Damage(name: "cluster not aligned", corruptions: 1, leaks: 1) { $0.put(70_000, at: $1 + 8, width: 8) },
    Damage(name: "cluster in the header", corruptions: 1, leaks: 1) { $0.put(32768, at: $1 + 8, width: 8) },
    Damage(name: "cluster used twice", corruptions: 1, leaks: 1, lasting: 1) {
      $0.put($0.number(at: $1 + 8, width: 8), at: $1 + 40, width: 8)
    },
    Damage(name: "cluster in the L1 table", corruptions: 1, leaks: 1, lasting: 1) {
      $0.put(65536, at: $1 + 8, width: 8)
    },
    Damage(name: "table past the end", corruptions: 1, leaks: 6) { image, _ in
      image.put(1 << 40, at: 65536, width: 8)
    },
    Damage(name: "table that reaches past the end", corruptions: 1, leaks: 6) { image, _ in
      image.put(UInt64(image.bytes.count - 65536), at: 65536, width: 8)
    },
    Damage(name: "table twice", corruptions: 4, lasting: 4) { image, l2 in
      image.put(UInt64(l2), at: 65536 + 8, width: 8)
    },
    Damage(name: "leak at the end", corruptions: 0, leaks: 2) { image, _ in
      image.bytes += [UInt8](repeating: 3, count: 2 * 65536)
    },
  ]

  @Test(arguments: damages) func checkAndRepairFindWhatTheJudgeFinds(_ damage: Damage) throws {
    try TemporaryFolder.with { folder in
      var image = try QEDHeaderTests.good()
      damage.change(&image, Int(image.number(at: 65536, width: 8)))
      let path = try folder.write(image.bytes, to: "image")
      let report = try Self.layer(path, .readOnly).check(progress: .none)
      #expect(report.corruptions == damage.corruptions && report.leaks == damage.leaks, "\(report)")
      let verdict = try ReferenceTool.check(path, format: "qed")
      #expect(verdict.corruptions == Int(report.corruptions), "\(verdict.text)")
      #expect(verdict.leaks == Int(report.leaks), "\(verdict.text)")
      // A table that stands in two entries is walked once there, too; its clusters count once.
      if damage.corruptions == 0 {
        #expect(verdict.text.contains("\"total-clusters\": \(report.totalClusters)"))
        #expect(verdict.text.contains("\"allocated-clusters\": \(report.allocatedClusters)"))
      }
      #expect(try Files.read(path) == image.bytes)

      let mended = try Self.layer(path, .readWrite).repair(.all, progress: .none)
      #expect(mended.corruptions == damage.lasting, "\(mended)")
      #expect(mended.corruptionsFixed == damage.corruptions - damage.lasting)
      let after = try ReferenceTool.check(path, format: "qed")
      #expect(after.corruptions == Int(damage.lasting), "\(after.text)")
      if damage.lasting == 0 { #expect(after.leaks == Int(mended.leaks)) }
    }
  }

  @Test func repairOfLeaksLeavesEntriesAlone() throws {
    try TemporaryFolder.with { folder in
      var image = try QEDHeaderTests.good()
      let table = Int(image.number(at: 65536, width: 8))
      image.put(1 << 40, at: table + 8, width: 8)
      let path = try folder.write(image.bytes, to: "image")
      let report = try Self.layer(path, .readWrite).repair(.leaks, progress: .none)
      #expect(report.corruptions == 1 && report.corruptionsFixed == 0)
      #expect(try Files.read(path) == image.bytes)
    }
  }

  /// The first table stands where data of the second one is: its entries, which lead nowhere, are a guest's bytes.
  @Test func entriesOfATableThatIsDataStay() throws {
    let store = MemoryStore([])
    var values = OptionValues(QEDFormat.createOptions)
    for (name, text) in [("cluster_size", "4k"), ("table_size", "1")] { try values.set(name, to: text) }
    try QEDFormat.create(
      on: store,
      CreateRequest(path: "image", virtualSize: 5 << 20, options: values, references: ReferenceOpener()))
    let writer = try ImageChain.over(store, format: QEDFormat.self, access: .readWrite)
    let pattern = [UInt8](repeating: 0x6b, count: 4096)
    for offset in [0, 2 << 20] as [UInt64] { try writer.writeBytes(pattern, at: offset) }
    let place = try #require(try writer.extent(at: 2 << 20, limit: 4096).extent.hostOffset)
    try writer.close()
    var image = ImageBytes(bytes: store.snapshot, format: QEDFormat.self, isBigEndian: false)
    image.put(place, at: Int(image.number(at: 40, width: 8)), width: 8)
    let damaged = MemoryStore(image.bytes)
    let chain = try ImageChain.over(
      damaged, format: QEDFormat.self, access: .readWrite, isForInspection: true)
    let report = try #require(chain.top as? any Repairable).repair(.all, progress: .none)
    #expect(report.corruptions > 0 && report.corruptionsFixed == 0)
    #expect(damaged.snapshot == image.bytes)
    let reader = try ImageChain.over(damaged, format: QEDFormat.self)
    #expect(try reader.readBytes(at: 2 << 20, count: 4096) == pattern)
  }

  @Test func unmendableImageThatWasNotClosedIsNotWrittenTo() throws {
    var image = try QEDHeaderTests.good().with(2, at: 16, width: 8)
    let table = Int(image.number(at: 65536, width: 8))
    image.put(image.number(at: table + 8, width: 8), at: table + 40, width: 8)
    #expect(image.openError(.readWrite)?.code == .corrupt)
    #expect(try image.open().readBytes(at: 65536, count: 1) == [11])
  }

  private static func layer(_ path: String, _ access: FileAccess) throws -> any Repairable {
    var options = OpenOptions(format: "qed", access: access)
    options.isForInspection = true
    return try #require(try ImageOpener.open(path, options).top as? any Repairable)
  }
}
