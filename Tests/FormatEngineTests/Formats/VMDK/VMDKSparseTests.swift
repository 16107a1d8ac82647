import CAllocationCounter
import TestSupport
import Testing

@testable import FormatEngine

/// Sparse extents: their header, their tables, and what writing does to them.
@Suite struct VMDKSparseTests {
  struct Field: Sendable, CustomTestStringConvertible {
    var name: String
    var offset: Int
    var width: Int
    var testDescription: String { name }

    static let all = [
      Field(name: "version", offset: 4, width: 4), Field(name: "flags", offset: 8, width: 4),
      Field(name: "capacity", offset: 12, width: 8), Field(name: "grainSize", offset: 20, width: 8),
      Field(name: "descriptorOffset", offset: 28, width: 8),
      Field(name: "descriptorSize", offset: 36, width: 8), Field(name: "numGTEsPerGT", offset: 44, width: 4),
      Field(name: "rgdOffset", offset: 48, width: 8), Field(name: "gdOffset", offset: 56, width: 8),
      Field(name: "overHead", offset: 64, width: 8), Field(name: "uncleanShutdown", offset: 72, width: 1),
      Field(name: "line ends", offset: 73, width: 4), Field(name: "compressAlgorithm", offset: 77, width: 2),
    ]
  }

  /// 0, 1, what limits there are and their neighbours, extremes.
  private static func values(_ width: Int) -> [UInt64] {
    var values: [UInt64] = [0, 1, 2, 3, 4, 5, 20, 128, 511, 512, 513, 4096, 8191, 8192, 8193]
    for bit in [8, 16, 20, 21, 22, 31, 32, 40, 54, 55, 63] {
      values += [(1 << UInt64(bit)) - 1, 1 << UInt64(bit), (1 << UInt64(bit)) + 1]
    }
    values += [0xffff_ffff, UInt64.max, UInt64.max - 1]
    let mask = width == 8 ? UInt64.max : (1 << UInt64(8 * width)) - 1
    return Array(Set(values.map { $0 & mask })).sorted()
  }

  @Test(arguments: Field.all)
  func anyValueOfAnyFieldIsReadOrRefusedInLittleMemory(_ field: Field) throws {
    let good = try VMDKImages.sparse()
    for value in Self.values(field.width) {
      var bytes = good
      VMDKImages.put(value, into: &bytes, at: field.offset, width: field.width)
      Deadline.within(seconds: 20, "\(field.name) = \(value)") {
        let before = imgfs_allocated_byte_count()
        if let (chain, _) = try? VMDKImages.open(bytes) {
          let size = chain.virtualSize
          for offset: UInt64 in [0, 65536 * 5, size / 1024 * 512, size &- 512] where offset < size {
            _ = try? chain.extent(at: offset, limit: 512)
            _ = try? chain.readBytes(at: offset, count: 512)
          }
        }
        #expect(imgfs_allocated_byte_count() - before < 64 << 20, "\(field.name) = \(value)")
        if let (chain, _) = try? VMDKImages.open(bytes, .readWrite), chain.virtualSize < 1 << 45 {
          try? chain.writeBytes([1, 2, 3], at: 65536 * 7)
          try? chain.flush()
        }
      }
    }
  }

  @Test(arguments: [
    ("version", 4, "Unsupported VMDK version 4"), ("numGTEsPerGT", 0xffff_ffff, "L2 table size too big"),
    ("numGTEsPerGT", 513, "L2 table size too big"), ("capacity", 1 << 45, "L1 size too big"),
    ("grainSize", UInt64.max, "Invalid granularity, image may be corrupt"),
    ("grainSize", 0, "Invalid granularity, image may be corrupt"),
    ("overHead", 1000, "File truncated, expecting at least 512000 bytes"),
    ("line ends", 0x0a0a_200a, "The VMDK file was transferred as text, which changed its bytes"),
    ("numGTEsPerGT", 0, "Grain tables without entries"),
    ("compressAlgorithm", 2, "Unsupported compression method 2 of a VMDK file"),
  ])
  func impossibleHeaderIsRefusedInWords(_ name: String, _ value: UInt64, _ words: String) throws {
    let field = try #require(Field.all.first { $0.name == name })
    var bytes = try VMDKImages.sparse()
    VMDKImages.put(value, into: &bytes, at: field.offset, width: field.width)
    let error = #expect(throws: EngineError.self) { try VMDKImages.open(bytes) }
    #expect(error?.message == words)
  }

  // MARK: Damaged tables

  @Test func redundantTableAnswersForADamagedOne() throws {
    let good = try VMDKImages.sparse()
    let content = try VMDKImages.open(good).0.readAll()
    let directory = Int(VMDKImages.number(good, at: 56, width: 8)) * 512
    let table = VMDKImages.table(good, copy: 0)
    for (place, value) in [(directory, 0xffff_ff00), (table, 0xffff_ff00), (table, 1), (56, 0xffff_ff00)] {
      var bytes = good
      VMDKImages.put(UInt64(value), into: &bytes, at: place, width: 4)
      let (chain, store) = try VMDKImages.open(bytes, .readWrite)
      #expect(try chain.readAll() == content, "\(place) = \(value)")
      // Nothing is written over a table that needs repair.
      #expect(throws: EngineError.self) { try chain.writeBytes([1], at: 0) }
      try chain.flush()
      #expect(ModelDisk.firstDifference(store.snapshot, bytes).map { $0 >= 512 && $0 < 4096 } ?? true)
    }
  }

  @Test func damageInBothTablesIsAnErrorForItsGrain() throws {
    var bytes = try VMDKImages.sparse()
    for copy in [0, 1] {
      VMDKImages.put(0x00ff_ffff, into: &bytes, at: VMDKImages.table(bytes, copy: copy) + 4, width: 4)
    }
    let (chain, _) = try VMDKImages.open(bytes)
    #expect(try chain.readBytes(at: 0, count: 4) == [10, 10, 10, 10])
    #expect(throws: EngineError.self) { try chain.readBytes(at: 65536, count: 1) }
    #expect(try chain.readBytes(at: 65536 * 5, count: 1) == [15])
  }

  /// An entry that leads into the header, the descriptor or a table: guest bytes never go there.
  @Test(arguments: [0, 1, 20, 21, 22, 25, 30])
  func grainInTheMetadataIsNotWritten(_ sector: UInt64) throws {
    var bytes = try VMDKImages.sparse()
    let table = VMDKImages.table(bytes, copy: 0)
    for copy in [0, 1] {
      VMDKImages.put(max(sector, 2), into: &bytes, at: VMDKImages.table(bytes, copy: copy), width: 4)
    }
    let (chain, store) = try VMDKImages.open(bytes, .readWrite)
    #expect(throws: EngineError.self) { try chain.writeBytes([UInt8](repeating: 9, count: 65536), at: 0) }
    try chain.flush()
    #expect(Array(store.snapshot[table..<table + 2048]) == Array(bytes[table..<table + 2048]))
    #expect(Array(store.snapshot[0..<512]) == Array(bytes[0..<512]))
  }

  /// Two entries of the directory, or both directories, with one table: what is written to one would show in both.
  @Test func overlappingTablesAreNotWritten() throws {
    let good = try VMDKImages.sparse(size: 64 * MiB)
    let directory = Int(VMDKImages.number(good, at: 56, width: 8)) * 512
    let redundant = Int(VMDKImages.number(good, at: 48, width: 8)) * 512
    let first = VMDKImages.number(good, at: directory, width: 4)
    for (place, value) in [
      (directory + 4, first), (directory + 4, first + 1), (redundant, first), (directory, 1),
      (redundant + 4, 0), (directory + 4, 0),
    ] {
      var bytes = good
      VMDKImages.put(value, into: &bytes, at: place, width: 4)
      let (chain, store) = try VMDKImages.open(bytes, .readWrite)
      #expect(throws: EngineError.self) { try chain.writeBytes([1], at: 40 << 20) }
      #expect(throws: EngineError.self) { try chain.writeZeros(at: 0, count: 65536) }
      try chain.flush()
      #expect(store.snapshot.count == bytes.count)
      #expect(try VMDKImages.report(bytes).corruptions + VMDKImages.report(bytes).leaks > 0, "\(place)")
    }
  }

  // MARK: Writing

  /// Images without tables for empty parts of the disk get new ones, in both directories.
  @Test func missingTablesAreMade() throws {
    var bytes = try VMDKImages.sparse(size: 128 * MiB)
    for field in [48, 56] {
      let directory = Int(VMDKImages.number(bytes, at: field, width: 8)) * 512
      for index in 1..<4 { VMDKImages.put(0, into: &bytes, at: directory + 4 * index, width: 4) }
    }
    let (chain, store) = try VMDKImages.open(bytes, .readWrite)
    #expect(try chain.extent(at: 32 * MiB, limit: 96 * MiB).extent.length == 96 * MiB)
    try chain.writeZeros(at: 96 * MiB, count: 32 * MiB)
    let changes: [(UInt64, UInt8)] = [(40 * MiB, 1), (100 * MiB + 5, 2), (41 * MiB, 3), (0, 4)]
    for (offset, value) in changes {
      try chain.writeBytes([UInt8](repeating: value, count: 70_000), at: offset)
    }
    try chain.close()
    #expect(try VMDKImages.report(store.snapshot) == CheckReport())
    try TemporaryFolder.with { folder in
      let path = try folder.write(store.snapshot, to: "image.vmdk")
      #expect(try ReferenceTool.check(path, format: "vmdk").corruptions == 0)
      let judged = try ReferenceTool.content(of: path, format: "vmdk", in: folder)
      #expect(try ModelDisk.firstDifference(judged, chain.readAll()) == nil)
      for (offset, value) in changes { #expect(judged[Int(offset) + 69_999] == value) }
    }
  }

  @Test func bothTablesSayTheSame() throws {
    let bytes = try VMDKImages.sparse()
    let (first, second) = (VMDKImages.table(bytes, copy: 0), VMDKImages.table(bytes, copy: 1))
    #expect(first != second)
    #expect(Array(bytes[first..<first + 64]) == Array(bytes[second..<second + 64]))
    #expect(VMDKImages.number(bytes, at: first, width: 4) > 1)
  }

  /// VMware's version 3 is not more than version 1 where nothing is packed; QEMU only reads it.
  @Test func versionThreeIsWritten() throws {
    var bytes = try VMDKImages.sparse()
    VMDKImages.put(3, into: &bytes, at: 4, width: 4)
    let (chain, store) = try VMDKImages.open(bytes, .readWrite)
    try chain.writeBytes([9, 9], at: 65536 * 9)
    try chain.close()
    #expect(VMDKImages.number(store.snapshot, at: 4, width: 4) == 3)
    try TemporaryFolder.with { folder in
      let path = try folder.write(store.snapshot, to: "image.vmdk")
      let judged = try ReferenceTool.content(of: path, format: "vmdk", in: folder)
      #expect(judged[65536 * 9] == 9 && judged[65536 * 5] == 15)
    }
  }

  @Test func freedGrainsAreUsedAgainAfterAFlush() throws {
    let (chain, store) = try VMDKImages.open(try VMDKImages.sparse(), .readWrite)
    let before = store.snapshot.count
    for round in 0..<10 {
      try chain.discard(at: 0, count: 65536)
      try chain.flush()
      try chain.writeBytes([UInt8](repeating: UInt8(round + 1), count: 65536), at: 0)
      try chain.flush()
    }
    #expect(store.snapshot.count == before)
    #expect(try chain.readBytes(at: 65535, count: 1) == [10])
  }

  // MARK: Check and repair

  @Test func damageIsFoundAndMended() throws {
    let good = try VMDKImages.sparse()
    #expect(try VMDKImages.report(good) == CheckReport())
    let content = try VMDKImages.open(good).0.readAll()
    let directory = Int(VMDKImages.number(good, at: 56, width: 8)) * 512
    let (table, other) = (VMDKImages.table(good, copy: 0), VMDKImages.table(good, copy: 1))
    for (place, value, words) in [
      (table + 4, 0xffff_ff00, "ERROR: cluster offset for sector 128 points after EOF"),
      (table, 22, "ERROR: cluster offset for sector 0 points into the metadata"),
      (table + 20, 1, "ERROR: cluster offset for sector 640 points into the metadata"),
      (directory, 0xffff_ff00, "ERROR: could not get cluster_offset for sector 0"),
      (other + 4, 0, "WARNING: the redundant grain tables differ for sector 128"),
      (other + 8, 999, "WARNING: the redundant grain tables differ for sector 256"),
    ] {
      var bytes = good
      VMDKImages.put(UInt64(value), into: &bytes, at: place, width: 4)
      let report = try VMDKImages.report(bytes)
      #expect(report.findings == [words])
      #expect(report.corruptions == (words.hasPrefix("ERROR") ? 1 : 0))
      #expect(report.leaks == (words.hasPrefix("ERROR") ? 0 : 1))
      let (chain, store) = try VMDKImages.open(bytes, .readWrite)
      let layer = try #require(chain.top as? any Repairable)
      let leaks = try layer.repair(.leaks, progress: .none)
      #expect(leaks.leaksFixed == report.leaks && leaks.corruptions == report.corruptions)
      let mended = try layer.repair(.all, progress: .none)
      #expect(mended.corruptionsFixed == report.corruptions && mended.corruptions == 0)
      #expect(try VMDKImages.report(store.snapshot) == CheckReport(), "\(words)")
      #expect(try VMDKImages.open(store.snapshot).0.readAll() == content, "\(words)")
    }
  }

  /// The redundant table takes the place of a lost one with what is wrong in itself.
  @Test func tableThatTakesTheOthersPlaceIsMendedItself() throws {
    var bytes = try VMDKImages.sparse()
    let directory = Int(VMDKImages.number(bytes, at: 56, width: 8)) * 512
    VMDKImages.put(0xffff_ff00, into: &bytes, at: directory, width: 4)
    VMDKImages.put(0xffff_ff00, into: &bytes, at: VMDKImages.table(bytes, copy: 1) + 8, width: 4)
    let (chain, store) = try VMDKImages.open(bytes, .readWrite)
    let report = try #require(chain.top as? any Repairable).repair(.all, progress: .none)
    #expect(report.corruptionsFixed == 2 && report.corruptions == 0, "\(report.findings)")
    #expect(try VMDKImages.report(store.snapshot).corruptions == 0)
  }

  @Test func twoSectorsInOneGrainAreFound() throws {
    var bytes = try VMDKImages.sparse()
    for copy in [0, 1] {
      let table = VMDKImages.table(bytes, copy: copy)
      VMDKImages.put(VMDKImages.number(bytes, at: table, width: 4), into: &bytes, at: table + 8, width: 4)
    }
    let report = try VMDKImages.report(bytes)
    #expect(report.findings == ["ERROR: the grain for sector 256 is that of another sector, too"])
  }

  // MARK: Failures and damage while writing

  /// Two entries lead to one grain: what one of them lets go of is still the other's.
  @Test func sharedGrainIsNotLetGoOf() throws {
    var bytes = try VMDKImages.sparse()
    for copy in 0..<2 {
      let table = VMDKImages.table(bytes, copy: copy)
      VMDKImages.put(VMDKImages.number(bytes, at: table + 4, width: 4), into: &bytes, at: table + 8, width: 4)
    }
    let (chain, store) = try VMDKImages.open(bytes, .readWrite)
    try chain.discard(at: 65536, count: 65536)
    try chain.writeZeros(at: 5 * 65536, count: 65536)
    try chain.flush()
    for number in 8..<12 {
      try chain.writeBytes([UInt8](repeating: 0xee, count: 65536), at: UInt64(number * 65536))
    }
    try chain.close()
    let content = try VMDKImages.open(store.snapshot).0.readAll()
    #expect(content[65536..<131_072].isZero && content[5 * 65536..<6 * 65536].isZero)
    #expect(content[131_072..<196_608].holdsOnly(11))
    #expect(try VMDKImages.report(store.snapshot).corruptions == 0)
  }

  /// Any call fails while a table is added, of an image whose directories are larger than the cache: it is in both of them, or
  /// in neither.
  @Test func failedNewTableIsInNoDirectory() throws {
    let small = MemoryStore(try VMDKImages.sparse())
    var geometry = try VMDKGrainGeometry(try VMDKSparseHeader.read(from: small), byteCount: 1 << 40)
    (geometry.directoryOffset, geometry.redundantDirectoryOffset) = (MiB, 2 * MiB)
    func add(failing number: Int?) throws -> Int {
      let store = FaultStore(MemoryStore([UInt8](repeating: 0, count: 4 << 20)))
      let tables = try VMDKGrainTables(geometry, file: store, cacheByteCount: 64 * KiB)
      // Only the primary directory is read by those who look for a table.
      #expect(try tables.tableOffset(7000, copy: 0) == nil)
      store.arm(failing: number)
      var failed = false
      do throws(EngineError) {
        try tables.addTable(7000, at: [3 * MiB, 3 * MiB + 2048])
      } catch { failed = true }
      let calls = store.callCount
      store.arm(failing: nil)
      #expect(failed == (number != nil))
      for copy in 0..<2 {
        #expect((try tables.tableOffset(7000, copy: copy) == nil) == failed, "call \(number ?? -1), \(copy)")
      }
      return calls
    }
    let calls = try add(failing: nil)
    #expect(calls > 0)
    for number in 0..<calls { _ = try add(failing: number) }
  }
}
