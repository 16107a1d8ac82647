import TestSupport
import Testing

@testable import FormatEngine

/// Entries that lead into tables, and are let go of: with them the tables would become free room, and be overwritten.
@Suite struct Qcow2LostEntryTests {
  enum Table: String, CaseIterable, Sendable {
    case header, refcountTable, refcountBlock, l1, l2, snapshots, snapshotL1
  }

  private static func offset(of table: Table, in image: Qcow2Bytes) -> Int {
    switch table {
    case .header: 0
    case .refcountTable: image.refcountTableOffset
    case .refcountBlock: image.refcountBlockOffset
    case .l1: image.l1Offset
    case .l2: image.l2Offset
    case .snapshots: image.snapshotsOffset
    case .snapshotL1: Int(image.number(at: image.snapshotsOffset, width: 8))
    }
  }

  static let changes: [Qcow2Change] = [
    .write, .packed, .zeros, .discard, .shrink, .empty, .applySnapshot, .deleteSnapshot,
  ]

  @Test(arguments: changes, [false, true])
  func tablesStayWhereTheyAre(_ change: Qcow2Change, isPacked: Bool) throws {
    for table in Table.allCases where table != .header || isPacked {
      var image = try Qcow2Bytes.judged()
      let place = Self.offset(of: table, in: image)
      // The cluster that the change lets go of.
      let guest = change == .shrink ? 5 : change == .packed ? 3 : 1
      image.put(
        isPacked ? 1 << 62 | UInt64(place) : 1 << 63 | UInt64(place), at: image.l2Entry(guest), width: 8)
      let store = MemoryStore(image.bytes)
      var failed = false
      do { try change.perform(on: store) } catch let error as EngineError {
        failed = true
        #expect(error.code == .corrupt, "\(table): \(error.message)")
      }
      // Only where the entry stays, nothing has to be said of it.
      #expect(failed || change == .deleteSnapshot, "\(table)")
      let after = Qcow2Bytes(bytes: store.snapshot)
      // A change that is no concern of the entry may move tables.
      if failed && table != .header {
        #expect(after.bytes[place..<place + 64] == image.bytes[place..<place + 64], "\(table)")
      }
      let chain = try after.open(isForInspection: true)
      #expect(try chain.readBytes(at: 2 << 16, count: 65536).holdsOnly(12), "\(table)")
      let keeping = try #require(chain.top as? any SnapshotKeeping)
      if let record = try keeping.snapshots().first {
        let snapshot = chain.replacing(layerAt: 0, with: try keeping.openSnapshot(record))
        #expect(try snapshot.readBytes(at: 0, count: 65536).holdsOnly(10), "\(table)")
        #expect(try snapshot.readBytes(at: 1 << 16, count: 65536).holdsOnly(11), "\(table)")
      }
    }
  }

  /// A shrink that takes a whole table away lets go of none of its clusters where it cannot let go of all.
  @Test func aTableThatStaysKeepsAllThatItLeadsTo() throws {
    var image = try Qcow2Bytes.judged()
    image.put(1 << 63 | UInt64(image.l1Offset), at: image.l2Entry(1), width: 8)
    let store = MemoryStore(image.bytes)
    let before = try Self.findings(store)
    let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
    let error = #expect(throws: EngineError.self) { try chain.resize(to: 0) }
    #expect(error?.code == .corrupt)
    try? chain.close()
    #expect(try Self.findings(store) == before)
  }

  /// A repair counts such a cluster for both, so that either may go.
  @Test(arguments: changes, [Table.refcountTable, .refcountBlock, .l1, .snapshots, .snapshotL1])
  func whatARepairHasCountedMayGo(_ change: Qcow2Change, _ table: Table) throws {
    var image = try Qcow2Bytes.judged()
    let guest = change == .shrink ? 5 : change == .packed ? 3 : 1
    image.put(1 << 63 | UInt64(Self.offset(of: table, in: image)), at: image.l2Entry(guest), width: 8)
    let store = MemoryStore(image.bytes)
    let damaged = try ImageChain.over(
      store, format: Qcow2Format.self, access: .readWrite, isForInspection: true)
    let repairable = try #require(damaged.top as? any Repairable)
    let report = try repairable.repair(.all, progress: .none)
    #expect(report.corruptions == 0)
    try damaged.close()
    try change.perform(on: store)
    #expect(try Self.findings(store) == [])
  }

  /// What a check finds, but for flags that say less than they could: of two that shared a cluster one has gone.
  private static func findings(_ store: MemoryStore) throws -> [String] {
    let chain = try Qcow2Bytes(bytes: store.snapshot).open(isForInspection: true)
    let checkable = try #require(chain.top as? any Checkable)
    return try checkable.check(progress: .none).findings.filter {
      !($0.contains("OFLAG_COPIED") && $0.hasSuffix("refcount=1"))
    }
  }
}
