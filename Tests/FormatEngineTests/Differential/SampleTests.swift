import FormatEngine
import TestSupport
import Testing

/// Images that other programs made give the digests that are listed for them.
@Suite(.enabled(if: Samples.areHere)) struct SampleTests {
  @Test(arguments: Samples.expectations(Set(FormatCatalog.all.map { $0.name })))
  func sampleGivesItsDigest(_ sample: Samples.Expectation) throws {
    try TemporaryFolder.with { folder in
      let chain = try ImageOpener.open(try Samples.unpack(sample.name, into: folder))
      #expect(chain.members[0].formatName == sample.format)
      #expect(chain.virtualSize == sample.virtualSize)
      #expect(try RawDigest.of(chain) == sample.digest)
    }
  }

  /// What a fuzzer made of an image is refused with the words that qemu-img has for it.
  @Test(arguments: [
    ("afl9.vmdk", "vmdk", "L1 size too big"),
    ("afl5.img", "vpc", "Max Table Entries too large (1073741825)"),
  ])
  func madeUpSampleIsRefused(_ name: String, _ format: String, _ words: String) throws {
    try TemporaryFolder.with { folder in
      let path = try Samples.unpack(name, into: folder)
      let error = #expect(throws: EngineError.self) {
        try ImageOpener.open(path, OpenOptions(format: format))
      }
      #expect(error?.message.contains(words) == true, "\(String(describing: error))")
    }
  }

  /// A differencing disk whose parent is not there is an error that names it; what it has itself can be read.
  @Test func sampleWithoutItsParentIsReadOnRequest() throws {
    try TemporaryFolder.with { folder in
      let path = try Samples.unpack("fat-differential.vhd", into: folder)
      let error = #expect(throws: EngineError.self) { try ImageOpener.open(path) }
      #expect(error?.message.contains("C:\\Projects\\dfvfs\\test_data\\fat-parent.vhd") == true)
      let alone = try ImageOpener.open(
        "json:{\"driver\":\"vpc\",\"file.filename\":\"\(path)\",\"backing\":null}")
      let stored = try alone.allExtents().filter { $0.located.extent.source == .stored }
      #expect(stored.map(\.located.extent.length).reduce(0, +) == 9216)
      // The file's name in the FAT's root folder.
      #expect(try alone.readBytes(at: stored[0].start, count: 512).contains { $0 != 0 })
    }
  }

  /// Our digest is the one that samples/digest prints, zeros and a short last block included.
  @Test func digestIsTheScripts() throws {
    try TemporaryFolder.with { folder in
      var random = SeededRandom(seed: 4)
      var disk = ModelDisk(byteCount: 1_000_448)
      disk.write(random.bytes(100_000), at: 65_536 * 3 + 100)
      disk.write([1], at: 1_000_447)
      let path = try folder.write(disk.bytes, to: "disk.raw")
      let script = try TestProcess.run(["/usr/bin/python3", try #require(Samples.folder) + "/digest", path])
        .expecting(0)
      let digest = try RawDigest.of(try ImageOpener.open(path, OpenOptions(format: "raw")))
      #expect(script.stdoutText == "\(path) 1000448 \(digest)\n")
    }
  }
}
