import CAllocationCounter
import Foundation
import TestSupport
import Testing

@testable import FormatEngine

/// Images that are made to do harm: to other files, to memory, to time, to the room on the host.
/// Docs/HOSTILE-INPUTS.md has the list that these tests go by.
@Suite struct Qcow2HostileTests {
  private static func check(_ store: any ByteStore) throws -> CheckReport {
    let request = LayerRequest(
      path: "image", access: .readOnly, references: ReferenceOpener(isEnabled: false), isForInspection: true)
    return try #require(try Qcow2Format.open(store, request) as? any Checkable).check(progress: .none)
  }

  // MARK: Other files

  /// What an image may name instead of a file.
  static let traps = [
    "fifo", "/dev/zero", "/dev/null", "/", "missing", "json:{\"driver\":\"file\",\"filename\":\"secret\"}",
    "nbd://localhost/x", "fuse:x", "secret", "../../../../../../etc/passwd",
  ]

  /// Explaining an image opens the image and nothing else, and at once (CVE-2024-4467).
  @Test(arguments: traps, ["data file", "backing file"])
  func explainingAnImageOpensNoFileThatItNames(_ name: String, _ role: String) throws {
    try TemporaryFolder.with { folder in
      try TestProcess.run(["/usr/bin/mkfifo", folder.file("fifo")]).expecting(0)
      try folder.write([1, 2, 3], to: "secret")
      let path = folder.file("image")
      if role == "data file" {
        try ReferenceTool.qemuImg(
          "create", "-q", "-f", "qcow2", "-o", "data_file=other", path, "1M", folder: folder.path)
        var image = Qcow2Bytes(bytes: try Files.read(path))
        let place = try #require(image.headerExtension(0x4441_5441))
        // The extension ends the list, so its length may change.
        image.bytes.replaceSubrange(
          place.offset..<512, with: [UInt8](repeating: 0, count: 512 - place.offset))
        image.bytes.replaceSubrange(place.offset..<place.offset + name.utf8.count, with: Array(name.utf8))
        image.put(UInt64(name.utf8.count), at: place.offset - 4, width: 4)
        try Files.write(image.bytes, to: path)
      } else {
        try ReferenceTool.qemuImg(
          "create", "-q", "-u", "-f", "qcow2", "-b", name, "-F", "raw", path, "1M", folder: folder.path)
      }
      try Deadline.within(seconds: 10, "\(role) \(name)") {
        for access in [FileAccess.readOnly, .readWrite] {
          var options = OpenOptions(format: "qcow2", access: access)
          options.isForInspection = true
          options.backing = .ignore
          let chain = try ImageOpener.open(path, options)
          _ = (chain.top as? any SelfDescribing)?.formatSpecificInfo
          _ = try #require(chain.top as? any Checkable).check(progress: .none)
          #expect(folder.openFiles() == [path])
        }
        for verb in [["info"], ["check"], ["check", "-r", "all"], ["snapshot", "-l"]] {
          let result = try BuiltProduct.qemuImg.run(verb + [path], folder: folder.path, timeout: 10)
          #expect(!result.stdoutText.isEmpty || !result.stderrText.isEmpty || verb[0] == "snapshot")
        }
      }
      #expect(try Files.read(folder.file("secret")) == [1, 2, 3])
    }
  }

  // MARK: Memory

  /// 65536 snapshots with names of 64 KiB would be 4 GiB of names (QEMU's 5dae6e30c5).
  @Test func hugeSnapshotTableIsRefusedInLittleMemory() throws {
    try TemporaryFolder.with { folder in
      let path = folder.file("image")
      try ReferenceTool.qemuImg("create", "-q", "-f", "qcow2", path, "1M")
      var image = Qcow2Bytes(bytes: try Files.read(path))
      let table = image.bytes.count.advanced(by: 65535) / 65536 * 65536
      image.put(65536, at: 60, width: 4)
      image.put(UInt64(table), at: 64, width: 8)
      try Files.write(image.bytes, to: path)
      let file = try FileStore.open(path, access: .readWrite)
      // Only the first 1100 are there: past 64 MiB nothing is looked at.
      var entry = [UInt8](repeating: 0, count: 40)
      (entry[14], entry[15], entry[39]) = (0xff, 0xff, 16)
      let length = (40 + 16 + 65535 + 7) / 8 * 8
      for index in 0..<1100 { try file.write(bytes: entry, at: UInt64(table + index * length)) }
      imgfs_start_measuring_peak()
      try Deadline.within(seconds: 30, "snapshot table of 4 GiB") {
        let chain = try ImageOpener.open(path)
        let keeping = try #require(chain.top as? any SnapshotKeeping)
        #expect(throws: EngineError.self) { try keeping.snapshots() }
        let report = try Self.check(file)
        #expect(report.failure?.explanation?.contains("Snapshot table is too big") == true)
      }
      #expect(imgfs_peak_byte_count() > 64 << 10 && imgfs_peak_byte_count() < 160 << 20)
    }
  }

  /// A cluster that unpacks to more than a cluster: the rest is never unpacked.
  @Test(arguments: ["zlib", "zstd"])
  func packedBombUnpacksToOneClusterAtMost(_ method: String) throws {
    try TemporaryFolder.with { folder in
      // 2 MiB of zeros packed as one cluster of 2 MiB, then read as if clusters were 64 KiB.
      let path = folder.file("image")
      let options = "cluster_size=2M,compression_type=\(method)"
      try ReferenceTool.qemuImg("create", "-q", "-f", "qcow2", "-o", options, path, "4M")
      try ReferenceTool.io(["write -q -c -P 7 0 2M"], on: path, format: "qcow2")
      let big = Qcow2Bytes(bytes: try Files.read(path))
      let entry = big.number(at: big.l2Offset, width: 8)
      let packed = Int(entry & ((1 << 49) - 1))
      let bytes = Array(big.bytes[packed..<min(packed + 4096, big.bytes.count)])
      let small = folder.file("small")
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k,compression_type=\(method)", small, "64k")
      try ReferenceTool.io(["write -q -c -P 9 0 4k", "write -q -P 12 4k 4k"], on: small, format: "qcow2")
      var image = Qcow2Bytes(bytes: try Files.read(small))
      let place = image.bytes.count.advanced(by: 4095) / 4096 * 4096
      image.bytes += [UInt8](repeating: 0, count: place - image.bytes.count) + bytes
      // 62 - (12 - 8) bits of offset, then seven further sectors.
      image.put(1 << 62 | 7 << 58 | UInt64(place), at: image.l2Offset, width: 8)
      let chain = try image.open()
      // QEMU takes the first cluster of it; so it may be read, or be an error, but never more than a cluster.
      if let cluster = try? chain.readBytes(at: 0, count: 4096) {
        #expect(cluster.holdsOnly(7))
      }
      #expect(try chain.readBytes(at: 4096, count: 4096).holdsOnly(12))
    }
  }

  // MARK: Time

  /// An L1 table whose entries all name one L2 table: the table is walked once for all of them.
  @Test func manyEntriesForOneTableAreCheckedAtOnce() throws {
    var image = try Qcow2Bytes.judged(["cluster_size=64k"], hasSnapshot: false)
    let count = 65536
    let entry = image.number(at: image.l1Offset, width: 8)
    let place = (image.bytes.count + 65535) / 65536 * 65536
    image.bytes += [UInt8](repeating: 0, count: place + count * 8 - image.bytes.count)
    for index in 0..<count { image.put(entry, at: place + index * 8, width: 8) }
    image.put(UInt64(count), at: 36, width: 4)
    image.put(UInt64(place), at: 40, width: 8)
    image.put(UInt64(count) << 29, at: 24, width: 8)
    let store = MemoryStore(image.bytes)
    try Deadline.within(seconds: 30, "check of \(count) entries for one table") {
      let report = try Self.check(store)
      // Four clusters and the table, each referred to as often as there are entries; 16 bits end one before.
      #expect(report.corruptions > 5 && report.allocatedClusters == 4 * UInt64(count))
      let request = LayerRequest(
        path: "image", access: .readWrite, references: ReferenceOpener(), isForInspection: true)
      let layer = try #require(try Qcow2Format.open(store, request) as? any Repairable)
      _ = try layer.repair(.all, progress: .none)
    }
    #expect(store.snapshot.count < image.bytes.count + 16 * 65536, "the repair made a copy for each entry")
  }

  @Test func hugestDiskIsOpenedAndRefusedOrReadAtOnce() throws {
    for size in [UInt64(Int64.max), UInt64(Int64.max) - 511, 1 << 62, 1 << 56] {
      let image = try Qcow2Bytes.judged().with(size, at: 24, width: 8)
      try Deadline.within(seconds: 10, "disk of \(size) bytes") {
        try image.useEverything("disk of \(size) bytes")
        _ = try? Self.check(MemoryStore(image.bytes))
      }
    }
  }

  /// A file of 8 TiB with almost nothing in it ("File too large" of other checkers).
  @Test func checkOfAHugeSparseFileIsQuick() throws {
    // Not every file system has files of that size.
    let store = SparseStore(atMost: 8 << 40)
    try TemporaryFolder.with { folder in
      let path = folder.file("image")
      try ReferenceTool.qemuImg("create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", path, "16T")
      try store.write(bytes: try Files.read(path), at: 0)
    }
    try store.resize(to: 8 << 40)
    try Deadline.within(seconds: 60, "check of 8 TiB") {
      let report = try Self.check(store)
      #expect(report.corruptions + report.leaks + report.checkErrors == 0, "\(report.findings)")
      #expect((report.imageEndOffset ?? .max) < 1 << 30)
    }
  }

  // MARK: Writing

  /// Metadata that counts as free: the write is refused, and the image says of itself that it is damaged.
  @Test(arguments: ["header", "L1 table", "L2 table", "refcount table", "refcount block"], [false, true])
  func writeIntoUncountedMetadataIsRefusedAndMarked(_ table: String, isPacked: Bool) throws {
    var image = try DamageBase.plain.image()
    // All clusters before it are taken, so it is the first that a write is given.
    let cluster =
      switch table {
      case "header": 0
      case "L1 table": image.l1Offset / 4096
      case "L2 table": image.l2Offset / 4096
      case "refcount table": image.refcountTableOffset / 4096
      default: image.refcountBlockOffset / 4096
      }
    image.setCount(cluster, 0)
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
    let new = [UInt8](repeating: 0xee, count: 4096)
    do throws(EngineError) {
      if isPacked {
        try chain.writePacked(new, at: 9 * 4096)
      } else {
        try chain.writeBytes(new, at: 9 * 4096)
      }
      // Taking no such cluster is as good as refusing it: no search begins at the header.
      #expect(table == "header")
      try chain.close()
    } catch {
      #expect(error.code == .corrupt, "\(error)")
      #expect(Qcow2Bytes(bytes: store.snapshot).number(at: 72, width: 8) & 2 != 0, "\(table) is not marked")
    }
    let place = cluster * 4096
    #expect(
      cluster == 0 || Array(store.snapshot[place..<place + 4096]) == Array(image.bytes[place..<place + 4096]))
    for (guest, byte) in [(0, 10), (1, 11), (2, 12), (5, 15)] as [(UInt64, UInt8)] {
      let read = try Qcow2Bytes(bytes: store.snapshot).open().readBytes(at: guest * 4096, count: 4096)
      #expect(read.holdsOnly(byte), "\(table), cluster \(guest)")
    }
  }

  /// A snapshot of an image whose entries go past what is counted: refused or sound, and nothing is lost (CVE-2014-0147).
  @Test func snapshotOfAnImageWithLostEntriesLosesNothing() throws {
    for entry in [1 << 63 | 1 << 40, 1 << 63 | 0x00ff_ffff_ffff_f000, 1 << 62 | 1 << 45] as [UInt64] {
      var image = try DamageBase.plain.image()
      image.put(entry, at: image.l2Entry(1), width: 8)
      let store = MemoryStore(image.bytes)
      try Deadline.within(seconds: 20, "snapshot") {
        let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
        let layer = try #require(chain.top as? any SnapshotChanging)
        _ = try? chain.changingWhole { () throws(EngineError) in
          try layer.createSnapshot(named: "new", at: SnapshotDate(seconds: 1, nanoseconds: 0))
        }
        try? chain.close()
      }
      #expect(store.snapshot.count < image.bytes.count + 64 * 4096, "it grew")
      let chain = try Qcow2Bytes(bytes: store.snapshot).open()
      #expect(try chain.readBytes(at: 0, count: 4096).holdsOnly(10))
      #expect(try chain.readBytes(at: 2 * 4096, count: 4096).holdsOnly(12))
    }
  }

  /// Two packed clusters share a cluster of the file: changing the one keeps the other and its count.
  @Test func packedNeighboursInOneClusterLiveOnTheirOwn() throws {
    let image = try DamageBase.compressed.image()
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
    try chain.writeBytes([1, 2, 3], at: 6 * 4096 + 100)
    try chain.flush()
    #expect(try chain.readBytes(at: 7 * 4096, count: 4096).holdsOnly(17))
    #expect(try chain.readBytes(at: 6 * 4096, count: 100).holdsOnly(16))
    try chain.discard(at: 7 * 4096, count: 4096)
    try chain.close()
    let report = try Self.check(store)
    #expect(report.corruptions + report.leaks == 0, "\(report.findings)")
  }

  /// Ten thousand times: change, let go, make durable. The file does not grow with the number of rounds.
  @Test func fileDoesNotGrowWithTheNumberOfFlushes() throws {
    let store = MemoryStore(try DamageBase.smallClusters.image().bytes)
    let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
    var most = 0
    for round in 0..<Effort.rounds(10_000) {
      let offset = UInt64(round % 16) * 512
      if round % 3 == 0 {
        try chain.discard(at: offset, count: 512)
      } else {
        try chain.writeBytes([UInt8](repeating: UInt8(round & 0xff), count: 512), at: offset)
      }
      try chain.flush()
      if round == 100 { most = store.snapshot.count }
    }
    try chain.close()
    #expect(store.snapshot.count <= most + 8 * 512)
    let report = try Self.check(store)
    #expect(report.corruptions + report.leaks == 0, "\(report.findings)")
  }
}
