import FormatEngine
import Glibc
import TestSupport
import Testing

@testable import imgfs

extension OpenDisk {
  /// The whole disk of a chain.
  convenience init(_ chain: ImageChain) throws(EngineError) {
    let view = DiskView(session: ImageSession(chain), source: .live, listedByteCount: chain.virtualSize)
    try self.init(DiskFile(view))
  }

  func source(at offset: UInt64, count: Int) throws(EngineError) -> Source {
    try withChain { (chain) throws(EngineError) in try source(at: offset, count: count, in: chain) }
  }

  func read(_ source: Source, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    try withChain { (chain) throws(EngineError) in
      unsafe try read(source, at: offset, in: chain, into: buffer)
    }
  }
}

@Suite struct OpenDiskTests {
  private func qcow2(_ folder: TemporaryFolder, _ commands: String...) throws -> OpenDisk {
    let path = folder.file("disk.qcow2")
    try ReferenceTool.qemuImg("create", "-f", "qcow2", path, "1M")
    try ReferenceTool.io(commands, on: path, format: "qcow2")
    return try OpenDisk(try ImageOpener.open(path))
  }

  private func isFile(_ source: OpenDisk.Source) -> Bool { if case .file = source { true } else { false } }

  @Test func splicesLargeStoredExtentsOnly() throws {
    try TemporaryFolder.with { folder in
      let disk = try qcow2(folder, "write -P 1 0 256k", "write -z 512k 128k")
      #expect(isFile(try disk.source(at: 0, count: 256 * 1024)))
      #expect(!isFile(try disk.source(at: 0, count: 4096)))
      #expect(!isFile(try disk.source(at: 512 * 1024, count: 128 * 1024)))
      // Half stored, half not.
      #expect(!isFile(try disk.source(at: 128 * 1024, count: 256 * 1024)))
    }
  }

  @Test func doesNotSpliceEncryptedExtents() throws {
    try TemporaryFolder.with { folder in
      let path = folder.file("disk.qcow2")
      var options = OpenOptions(format: "qcow2", access: .readWrite)
      options.use(passphrase: "open sesame")
      var values = OptionValues(Qcow2Format.createOptions)
      try values.set("encrypt.format", to: "aes")
      try values.set("encrypt.key-secret", to: "key")
      try values.set("size", to: "1M")
      _ = try ImageCreator.create(path, format: Qcow2Format.self, options: values, secrets: options.secrets)
      let content = [UInt8](repeating: 7, count: 256 * 1024)
      let chain = try ImageOpener.open(path, options)
      try chain.writeBytes(content, at: 0)
      try chain.flush()
      let disk = try OpenDisk(chain)
      let source = try disk.source(at: 0, count: content.count)
      #expect(!isFile(source))
      let buffer = AlignedBuffer(byteCount: content.count)
      unsafe try disk.read(source, at: 0, into: buffer.bytes)
      #expect(unsafe Array(buffer.bytes) == content)
    }
  }

  @Test func copiesWhatReachesPastTheEndOfItsFile() throws {
    try TemporaryFolder.with { folder in
      let content = [UInt8](repeating: 7, count: 100_001)
      let disk = try OpenDisk(try ImageOpener.open(try folder.write(content, to: "odd.raw")))
      #expect(disk.byteCount == 100_352)
      #expect(isFile(try disk.source(at: 0, count: 65_536)))
      let source = try disk.source(at: 0, count: 100_352)
      #expect(!isFile(source))
      let buffer = AlignedBuffer(byteCount: 100_352)
      unsafe buffer.bytes.initializeMemory(as: UInt8.self, repeating: 99)
      unsafe try disk.read(source, at: 0, into: buffer.prefix(100_352))
      #expect(unsafe Array(buffer.prefix(100_352)) == content + [UInt8](repeating: 0, count: 351))
    }
  }

  @Test func findsDataAndHoles() throws {
    try TemporaryFolder.with { folder in
      let disk = try qcow2(folder, "write -P 1 64k 64k", "write -P 1 256k 128k", "write -z 384k 64k")
      let KiB: UInt64 = 1024
      #expect(disk.seek(from: 0, toData: false) == 0)
      #expect(disk.seek(from: 0, toData: true) == 64 * KiB)
      #expect(disk.seek(from: 70 * KiB, toData: true) == 70 * KiB)
      #expect(disk.seek(from: 70 * KiB, toData: false) == 128 * KiB)
      #expect(disk.seek(from: 128 * KiB, toData: true) == 256 * KiB)
      #expect(disk.seek(from: 256 * KiB, toData: false) == 384 * KiB)
      #expect(disk.seek(from: 384 * KiB, toData: true) == nil)
      #expect(disk.seek(from: 1024 * KiB, toData: false) == nil)
      #expect(disk.allocatedByteCount() == (192 * KiB, true))
    }
  }

  /// QEMU's own rule for what lseek may say, which it asserts with O_DIRECT.
  @Test func holesAreMadeOfWholeBlocks() throws {
    try TemporaryFolder.with { folder in
      let path = folder.file("disk.qcow2")
      try ReferenceTool.qemuImg("create", "-f", "qcow2", "-o", "cluster_size=512", path, "64512")
      try ReferenceTool.io(
        ["write -P 1 4608 512", "write -P 1 20480 4608", "write -P 1 26624 512", "write -P 1 40448 512"],
        on: path, format: "qcow2")
      let disk = try OpenDisk(try ImageOpener.open(path))
      var places: [UInt64] = []
      var (position, isData): (UInt64, Bool) = (0, false)
      while let next = disk.seek(from: position, toData: !isData) {
        places.append(next)
        (position, isData) = (next, !isData)
      }
      // 4608 to 5120; 20480 to 25088, with 26624 to 27136 behind a hole of less than a block; 40448 to 40960.
      #expect(places == [4096, 8192, 20480, 28672, 36864, 40960])
      #expect(disk.seek(from: 40_960, toData: false) == 40_960)
      #expect(disk.seek(from: 4_700, toData: true) == 4_700)
      #expect(disk.seek(from: 100, toData: false) == 100)
    }
  }

  @Test func endsAFullDiskWithAHole() throws {
    try TemporaryFolder.with { folder in
      let disk = try qcow2(folder, "write -P 1 0 1M")
      #expect(disk.seek(from: 0, toData: false) == 1 << 20)
      #expect(disk.allocatedByteCount() == (1 << 20, true))
    }
  }

  /// Nobody can end a process that waits for imgfs, so an answer comes after some time, if not the best one.
  @Test func whatIsNotLookedAtInTimeIsData() throws {
    try TemporaryFolder.with { folder in
      // Clusters that no two of make one run: each before the one that was written before it, then zeros and nothing.
      let cluster: UInt64 = 65536
      let path = folder.file("disk.qcow2")
      try ReferenceTool.qemuImg("create", "-f", "qcow2", path, "8M")
      try ReferenceTool.io(
        (0..<64).map { "write -P 1 \(64 * (63 - $0))k 64k" }
          + stride(from: 64, to: 126, by: 2).map { "write -z \(64 * $0)k 64k" } + ["write -P 1 8128k 64k"],
        on: path, format: "qcow2")
      let disk = try OpenDisk(try ImageOpener.open(path))
      #expect(disk.seek(from: 0, toData: false) == 64 * cluster)
      #expect(disk.seek(from: 0, toData: false, seconds: 0) == 128 * cluster)
      #expect(disk.seek(from: 64 * cluster, toData: true) == 127 * cluster)
      #expect(disk.seek(from: 64 * cluster, toData: true, seconds: 0) == 64 * cluster)
      #expect(disk.allocatedByteCount() == (65 * cluster, true))
      #expect(disk.allocatedByteCount(seconds: 0) == (128 * cluster, false))
    }
  }

  /// A file of no blocks is one that tar does not read.
  @Test func guessIsNeverThatThereIsNothing() throws {
    try TemporaryFolder.with { folder in
      let disk = try qcow2(folder, "write -P 1 960k 64k")
      #expect(disk.allocatedByteCount(seconds: 0) == (4096, false))
      #expect(disk.allocatedByteCount() == (65536, true))
    }
  }

  @Test func isSharedByAllWhoHaveItOpen() throws {
    let session = ImageSession(SnapshotfulLayer([]).chain())
    let file = DiskFile(DiskView(session: session, source: .live, listedByteCount: 8192))
    let first = try file.opened()
    #expect(try file.opened() === first)
    #expect(file.knownAllocatedByteCount == nil)
    #expect(try file.allocatedByteCount() == 8192)
    #expect(file.knownAllocatedByteCount == 8192)
  }
}
