import FormatEngine
import TestSupport
import Testing

/// Images whose reference counts are wrong: a write must not take metadata for free room.
@Suite struct Qcow2WrongCountTests {
  enum Table: String, CaseIterable, Sendable {
    case header, refcountTable, refcountBlock, l1, l2, snapshots, snapshotL1
  }

  private func offset(of table: Table, in image: Qcow2Bytes) -> Int {
    switch table {
    case .header: 0
    case .refcountTable: Int(image.number(at: 48, width: 8))
    case .refcountBlock: Int(image.number(at: Int(image.number(at: 48, width: 8)), width: 8))
    case .l1: image.l1Offset
    case .l2: image.l2Offset
    case .snapshots: image.snapshotsOffset
    case .snapshotL1: Int(image.number(at: image.snapshotsOffset, width: 8))
    }
  }

  @Test(arguments: Table.allCases)
  func uncountedMetadataIsNotOverwritten(_ table: Table) throws {
    var image = try Qcow2Bytes.judged()
    let cluster = offset(of: table, in: image) / 65536
    image.put(0, at: offset(of: .refcountBlock, in: image) + cluster * 2, width: 2)
    let store = MemoryStore(image.bytes)
    var written: [UInt64] = []
    do {
      let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
      for guest in [9, 10, 11] as [UInt64] {
        do throws(EngineError) {
          try chain.writeBytes([UInt8](repeating: 0xee, count: 65536), at: guest << 16)
          written.append(guest)
        } catch { #expect(error.code == .corrupt && error.message.contains("Preventing")) }
      }
      try chain.flush()
    }
    #expect(table == .header || written.count < 3, "the uncounted cluster was handed out")
    let chain = try Qcow2Bytes(bytes: store.snapshot).open()
    #expect(try chain.readBytes(at: 0, count: 65536).holdsOnly(20))
    for (guest, byte) in [(1, 11), (2, 12), (5, 15)] as [(UInt64, UInt8)] {
      #expect(
        try chain.readBytes(at: guest << 16, count: 65536).holdsOnly(byte), "cluster \(guest)")
    }
    for guest in written {
      #expect(
        try chain.readBytes(at: guest << 16, count: 65536).holdsOnly(0xee), "cluster \(guest)")
    }
    let keeping = try #require(chain.top as? any SnapshotKeeping)
    let record = try #require(try keeping.snapshots().first)
    let snapshot = chain.replacing(layerAt: 0, with: try keeping.openSnapshot(record))
    #expect(try snapshot.readBytes(at: 0, count: 65536).holdsOnly(10))
  }

  @Test func fullOneBitCountIsNotPassed() throws {
    // Every cluster counted already, by counts that cannot grow: new room must come from the end.
    var image = try Qcow2Bytes.judged(["refcount_bits=1"], hasSnapshot: false)
    let block = offset(of: .refcountBlock, in: image)
    for index in 0..<65536 / 8 { image.put(UInt64.max, at: block + index * 8, width: 8) }
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
    Deadline.within(seconds: 20, "all clusters counted") {
      try? chain.writeBytes([UInt8](repeating: 0xee, count: 65536), at: 9 << 16)
      try? chain.flush()
    }
    #expect(try chain.readBytes(at: 65536, count: 65536).holdsOnly(11))
  }

  @Test(arguments: [0x200, 1 << 40, 0x00ff_ffff_ffff_0000] as [UInt64])
  func wrongRefcountBlockStopsWritesNotReads(_ entry: UInt64) throws {
    var image = try Qcow2Bytes.judged()
    image.put(entry, at: offset(of: .refcountTable, in: image), width: 8)
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
    #expect(try chain.readBytes(at: 65536, count: 65536).holdsOnly(11))
    try? chain.writeBytes([1], at: 9 << 16)
    try? chain.flush()
    #expect(try store.byteCount() < 8 << 20)
    #expect(try chain.readBytes(at: 65536, count: 65536).holdsOnly(11))
  }
}
