import Foundation
import Synchronization
import TestSupport
import Testing

@testable import FormatEngine

/// A raw disk that only its bytes say to be raw never becomes an image of another format.
@Suite struct ProbedDiskTests {
  /// First bytes by which a format is known.
  static let heads: [String: [UInt8]] = {
    func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }
    return [
      "qcow2": [0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3], "qcow": [0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 1],
      "qed": [0x51, 0x45, 0x44, 0], "vmdk": bytes("KDMV") + [1, 0, 0, 0],
      "vdi": [UInt8](repeating: 0, count: 64) + [0x7f, 0x10, 0xda, 0xbe], "vpc": bytes("conectix"),
      "vhdx": bytes("vhdxfile"), "parallels": bytes("WithoutFreeSpace") + [2, 0, 0, 0],
      "luks": bytes("LUKS") + [0xba, 0xbe, 0, 1],
      "bochs": bytes("Bochs Virtual HD Image\0") + [UInt8](repeating: 0, count: 9) + bytes("Redolog\0")
        + [UInt8](repeating: 0, count: 8) + bytes("Growing\0") + [UInt8](repeating: 0, count: 8) + [
          0, 0, 2, 0,
        ],
      "cloop": bytes(
        "#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"),
    ]
  }()

  private func withDisk(
    format: String? = nil, byteCount: Int = 1 << 20, _ body: (ImageChain, String) throws -> Void
  ) throws {
    try TemporaryFolder.with { folder in
      let path = try folder.write([UInt8](repeating: 7, count: byteCount), to: "disk")
      try body(try ImageOpener.open(path, OpenOptions(format: format, access: .readWrite)), path)
    }
  }

  private func isRefused(_ body: () throws(EngineError) -> Void) -> Bool {
    do throws(EngineError) {
      try body()
      return false
    } catch { return error.code == .system(errno: EPERM) }
  }

  /// A head, filled up to whole sectors and to more than the bytes that are looked at.
  @Test(arguments: heads.keys.sorted(), [512, 1024, 2048, 4096, 300_000])
  func headOfAnyFormatIsRefused(_ name: String, _ count: Int) throws {
    let head = try #require(Self.heads[name])
    try withDisk { disk, path in
      let before = try Files.read(path)
      let bytes = head + [UInt8](repeating: 0, count: count - head.count)
      #expect(isRefused { () throws(EngineError) in try disk.writeBytes(bytes, at: 0) })
      #expect(try Files.read(path) == before)
      // Elsewhere it is a guest's business.
      try disk.writeBytes(bytes, at: 4096)
      try disk.close()
      #expect(try ImageOpener.open(path).members[0].formatName == "raw")
    }
  }

  /// Byte by byte, from the front or from the back: the one that completes it is refused.
  @Test(arguments: heads.keys.sorted(), [false, true])
  func headThatComesInPiecesIsNeverWhole(_ name: String, _ fromBack: Bool) throws {
    let head = try #require(Self.heads[name])
    try withDisk { disk, path in
      try disk.writeZeros(at: 0, count: 4096)
      let places = Array(head.indices)
      var refused = 0
      for place in fromBack ? places.reversed() : places {
        if isRefused({ () throws(EngineError) in try disk.writeBytes([head[place]], at: UInt64(place)) }) {
          refused += 1
        }
      }
      try disk.close()
      #expect(refused > 0)
      #expect(try ImageOpener.open(path).members[0].formatName == "raw")
    }
  }

  /// Zeros that leave nothing of a number but its low byte.
  @Test func zerosThatCompleteAHeadAreRefused() throws {
    try withDisk { disk, path in
      try disk.writeBytes(Array("LUKS".utf8) + [0xba, 0xbe, 7, 1], at: 0)
      #expect(isRefused { () throws(EngineError) in try disk.writeZeros(at: 6, count: 1) })
      #expect(isRefused { () throws(EngineError) in try disk.writeBytes([0], at: 6) })
      try disk.writeZeros(at: 0, count: 512)
      try disk.discard(at: 0, count: 1 << 20)
      #expect(try disk.readBytes(at: 0, count: 4096).holdsOnly(0))
    }
  }

  /// Two writes at the same time, each of which is harmless alone.
  @Test func writesAtTheSameTimeCompleteNoHead() throws {
    try withDisk { disk, path in
      for round in 0..<200 {
        try disk.writeZeros(at: 0, count: 512)
        let failures = Atomic<Int>(0)
        DispatchQueue.concurrentPerform(iterations: 2) { half in
          let piece: [UInt8] = half == 0 ? [0x51, 0x46] : [0x49, 0xfb, 0, 0, 0, 2 + UInt8(round % 2)]
          if isRefused({ () throws(EngineError) in try disk.writeBytes(piece, at: half == 0 ? 0 : 2) }) {
            failures.add(1, ordering: .relaxed)
          }
        }
        #expect(failures.load(ordering: .relaxed) == 1)
      }
    }
  }

  @Test(arguments: heads.keys.sorted())
  func diskThatIsSaidToBeRawHoldsAnything(_ name: String) throws {
    let head = try #require(Self.heads[name])
    try withDisk(format: "raw") { disk, path in
      try disk.writeBytes(head, at: 0)
      try disk.close()
      #expect(try Files.read(path).starts(with: head))
    }
    // So does one in a tree of drivers that names the format.
    try TemporaryFolder.with { folder in
      let path = try folder.write([UInt8](repeating: 7, count: 4096), to: "disk")
      let disk = try ImageOpener.open(
        ImageSpecification(options: "driver=raw,file.filename=\(path)"), OpenOptions(access: .readWrite))
      try disk.writeBytes(head, at: 0)
    }
  }

  /// A base without a recorded format that is opened once more, for writing.
  @Test func baseThatWasProbedStaysGuarded() throws {
    try TemporaryFolder.with { folder in
      for (format, isGuarded) in [(nil, true), ("raw", false)] as [(String?, Bool)] {
        try folder.write([UInt8](repeating: 7, count: 1 << 20), to: "base")
        let path = folder.file("top")
        try Qcow2Format.create(
          on: FileStore.create(path),
          CreateRequest(
            path: path, virtualSize: MiB, backing: BackingReference(name: "base", format: format),
            options: OptionValues(Qcow2Format.createOptions), references: ReferenceOpener()))
        let options = OpenOptions(format: "qcow2", access: .readWrite)
        let chain = try ImageOpener.open(path, options)
        try chain.writeBytes(try #require(Self.heads["qcow2"]), at: 0)
        let base = try ImageOpener.reopenForWriting(chain, from: 1, options)
        #expect(
          isRefused { () throws(EngineError) in try Committer.commit(chain, at: 1, into: base) } == isGuarded)
        #expect(try Files.read(folder.file("base"))[0] == (isGuarded ? 7 : 0x51))
      }
    }
  }

  /// The judge refuses whole sectors of the same formats.
  @Test(arguments: heads.keys.sorted())
  func judgeRefusesTheSameHeads(_ name: String) throws {
    let head = try #require(Self.heads[name])
    try TemporaryFolder.with { folder in
      try folder.write([UInt8](repeating: 7, count: 1 << 20), to: "disk")
      try folder.write(head + [UInt8](repeating: 0, count: 512 - head.count), to: "head")
      let result = try ReferenceTool.qemuIO.run(["-c", "write -s head 0 512", "disk"], folder: folder.path)
      #expect((result.stdoutText + result.stderrText).contains("Operation not permitted"))
    }
  }
}
