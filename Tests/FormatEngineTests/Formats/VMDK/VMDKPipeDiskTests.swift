import TestSupport
import Testing

@testable import FormatEngine

/// streamOptimized images that come out of a pipe, and that go into one.
@Suite struct VMDKPipeDiskTests {
  /// All that comes out, in pieces of several lengths, some of them passed over.
  private static func content(_ image: [UInt8], seed: UInt64? = nil) throws -> [UInt8] {
    try TestPipe.feeding(image) { name in
      let options = OpenOptions(format: "vmdk")
      let disk = try ImageOpener.openStream(ImageSpecification(path: name), options)
      let size = Int(disk.virtualSize ?? 0)
      let result = AlignedBuffer(byteCount: size)
      unsafe result.bytes.initializeMemory(as: UInt8.self, repeating: 0)
      var random = SeededRandom(seed: seed ?? 1)
      var position = 0
      while position < size {
        let zeros = Int(try disk.zeroRun())
        if zeros > 0 && random.oneIn(2) {
          position += Int(try disk.skip(UInt64(random.oneIn(2) ? zeros : max(1, zeros / 2))))
          continue
        }
        let count = min(seed == nil ? 1 << 20 : 1 + random.below(200_000), size - position)
        let piece = unsafe UnsafeMutableRawBufferPointer(rebasing: result.bytes[position..<position + count])
        let got = unsafe try disk.read(into: piece)
        guard got == count else { throw TestFailure("\(got) instead of \(count) bytes at \(position)") }
        position += got
      }
      try disk.finish()
      return unsafe Array(result.prefix(size))
    }
  }

  @Test(arguments: [nil, 5, 6] as [UInt64?])
  func aStreamReadsAsTheDiskThatWasPacked(_ seed: UInt64?) throws {
    let disk = VMDKStreamTests.disk()
    #expect(try Self.content(VMDKStreamTests.packed(disk), seed: seed) == disk)
  }

  /// QEMU's have their tables first, and no footer.
  @Test func theJudgesImagesAreRead() throws {
    let disk = VMDKStreamTests.disk((3 << 20) + 512)
    try TemporaryFolder.with { folder in
      let raw = try folder.write(disk, to: "disk.raw")
      let image = folder.file("image.vmdk")
      try ReferenceTool.qemuImg(
        "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, image)
      let bytes = try Files.read(image)
      #expect(try Self.content(bytes, seed: 9) == disk)
      // Cut off between grains it looks whole but for its tables.
      for end in stride(from: 70_144, to: bytes.count - 65536, by: 51_200) {
        #expect(throws: EngineError.self) { try Self.content(Array(bytes[..<end])) }
      }
    }
  }

  /// Others than QEMU may leave out what fills up the last sector, also where that is the record's only one.
  @Test func theLastRecordNeedNotBePadded() throws {
    let disk = [UInt8](repeating: 7, count: 1 << 16) + [UInt8](repeating: 9, count: 1 << 16)
    try TemporaryFolder.with { folder in
      let raw = try folder.write(disk, to: "disk.raw")
      let image = folder.file("image.vmdk")
      try ReferenceTool.qemuImg(
        "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, image)
      var bytes = try Files.read(image)
      while bytes.suffix(512).allSatisfy({ $0 == 0 }) { bytes.removeLast(512) }
      let last = bytes.count - 512
      let packedCount = bytes[last + 8..<last + 12].reversed().reduce(0) { $0 << 8 | Int($1) }
      #expect(packedCount > 0 && packedCount < 500)
      #expect(try Self.content(Array(bytes[..<(last + 12 + packedCount)])) == disk)
      for missing in [1, packedCount, packedCount + 1, packedCount + 11] {
        #expect(throws: EngineError.self) {
          try Self.content(Array(bytes[..<(last + 12 + packedCount - missing)]))
        }
      }
    }
  }

  @Test func whatGoesIntoAPipeIsWhatTheJudgeReads() throws {
    let disk = VMDKStreamTests.disk((3 << 20) + 1024)
    let image = try TestPipe.collecting { name in
      var options = OptionValues(ImageCreator.options(of: VMDKFormat.self))
      try options.set("subformat", to: "streamOptimized")
      options.set("size", to: .number(UInt64(disk.count)))
      let target = try ImageCreator.createInPipe(name, format: VMDKFormat.self, options: options)
      let source = try ImageChain.over(MemoryStore(disk), format: RawFormat.self)
      try Converter.convert(from: [source], to: target, ConvertOptions())
      try target.close()
    }
    try TemporaryFolder.with { folder in
      let path = try folder.write(image, to: "image.vmdk")
      #expect(try ReferenceTool.content(of: path, format: "vmdk", in: folder) == disk)
    }
    #expect(try Self.content(image) == disk)
  }

  @Test func aStreamThatEndsEarlyIsIncomplete() throws {
    let image = try VMDKStreamTests.packed(VMDKStreamTests.disk(1 << 20))
    for end in stride(from: 0, to: image.count, by: 4096 + 512) {
      #expect(throws: EngineError.self) { try Self.content(Array(image[..<end])) }
    }
    // Without the marker of its end, and without that and the footer.
    for missing in [512, 1024, 1536] {
      #expect(throws: EngineError.self) { try Self.content(Array(image.dropLast(missing))) }
    }
  }

  @Test func damagedBytesGiveErrorsOrBytesAndNeverATrap() throws {
    var random = SeededRandom.fromEnvironment(or: 77)
    let image = try VMDKStreamTests.packed(VMDKStreamTests.disk(1 << 20))
    let interesting = [0..<512, 512..<1024, 65536..<66048, image.count - 4096..<image.count, 0..<image.count]
    for _ in 0..<Effort.rounds(120) {
      var bytes = image
      for _ in 0...random.below(3) {
        let range = interesting[random.below(interesting.count)]
        let place = range.lowerBound + random.below(range.count)
        bytes[place] = [0, 0xff, bytes[place] ^ 1, UInt8(random.below(256))][random.below(4)]
      }
      do { _ = try Self.content(bytes) } catch is EngineError {} catch is TestFailure {}
    }
  }

  @Test func grainsThatGoBackAreRefused() throws {
    let disk = VMDKStreamTests.disk(1 << 20)
    var image = try VMDKStreamTests.packed(disk)
    // The first grain says that it is the last one.
    image[65536] = UInt8(15 * 128 & 0xff)
    image[65537] = UInt8(15 * 128 >> 8)
    #expect(throws: EngineError.self) { try Self.content(image) }
  }
}
