import FormatEngine
import TestSupport
import Testing

@Suite struct VDIHeaderTests {
  static let fields = [
    HeaderField(name: "signature", offset: 64, width: 4, limits: [0xbeda_107f]),
    HeaderField(name: "version", offset: 68, width: 4, limits: [0x10001]),
    HeaderField(name: "header size", offset: 72, width: 4, limits: [0x180, 0x190, 512]),
    HeaderField(name: "type", offset: 76, width: 4, limits: [1, 4]),
    HeaderField(name: "flags", offset: 80, width: 4, limits: [1]),
    HeaderField(name: "map offset", offset: 340, width: 4, limits: [512, 1024, 1 << 30]),
    HeaderField(name: "data offset", offset: 344, width: 4, limits: [512, 1024, 1 << 30]),
    HeaderField(name: "sector size", offset: 360, width: 4, limits: [512, 4096]),
    HeaderField(
      name: "disk size", offset: 368, width: 8, limits: [512, 4 * 4096, 1 << 40, 0x1_ffff_f800_0000]),
    HeaderField(name: "block size", offset: 376, width: 4, limits: [512, 4096, 1 << 20, 1 << 28]),
    HeaderField(name: "extra bytes", offset: 380, width: 4, limits: [512, 4096]),
    HeaderField(name: "block count", offset: 384, width: 4, limits: [4, 128, 0x1fff_ff80]),
    HeaderField(name: "allocated", offset: 388, width: 4, limits: [2, 4]),
    HeaderField(name: "parent", offset: 424, width: 8, limits: [1]),
    HeaderField(name: "parent's change", offset: 440, width: 8, limits: [1]),
  ]

  private static let sound = VDIBytes(entries: [1, VDIBytes.free, 0, VDIBytes.zeros])

  /// Used in all ways that read it, and written to.
  private static func use(_ image: VDIBytes) {
    guard let chain = try? image.open(.readWrite) else { return }
    let size = chain.virtualSize
    for offset in [0, size / 2, size &- 512] where offset < size {
      _ = try? chain.extent(at: offset, limit: size - offset)
      _ = try? chain.readBytes(at: offset, count: Int(min(4096, size - offset)))
    }
    _ = chain.top.backing
    // Maps of hundreds of megabytes take their time, not memory.
    guard image.field(384) < 1 << 24 else { return }
    _ = try? (chain.top as? any Repairable)?.check(progress: .none)
    if size >= 1024 { _ = try? chain.writeBytes([1, 2, 3], at: 512) }
    _ = try? chain.close()
    _ = try? (chain.top as? any Repairable)?.repair(.all, progress: .none)
  }

  @Test(arguments: fields) func anyValueOfAnyFieldIsReadOrRefused(_ field: HeaderField) throws {
    for type: UInt32 in [1, 2, 4] {
      for value in field.values {
        var image = Self.sound.with(76, type)
        if type == 4 { image.setID(424, 0xb1) }
        if field.width == 8 {
          image.set64(field.offset, value)
        } else {
          image.set(field.offset, UInt32(value))
        }
        Deadline.within(seconds: 30, "\(field.name) = \(value)") { Self.use(image) }
      }
    }
  }

  @Test(
    arguments: [
      (64, 0, "Image not in VDI format (bad signature 00000000)"),
      (68, 0, "unsupported VDI image (version 0.0)"),
      (68, 0x10000, "unsupported VDI image (version 1.0)"),
      (68, 0x10002, "unsupported VDI image (version 1.2)"),
      (340, 1, "unsupported VDI image (unaligned block map offset 0x1)"), (340, 0, "lies over the header"),
      (344, 1, "unsupported VDI image (unaligned data offset 0x1)"), (344, 0, "lies over the block map"),
      (344, 512, "lies over the block map"),
      (360, 4096, "unsupported VDI image (sector size 4096 is not 512)"),
      (376, 0, "block size 0"), (376, 2048, "block size 2048"), (376, 4097, "block size 4097"),
      (376, 1 << 29, "block size 536870912"), (380, 1, "1 extra bytes"), (380, 8192, "8192 extra bytes"),
      (384, 0x1fff_ff81, "too many blocks 536870785, max is 536870784"),
      (384, 1, "unsupported VDI image (disk size 16384, image bitmap has room for 4096)"),
      (384, 0, "disk size 16384"), (372, 1, "disk size 4294983680"),
      (
        372, 0x20000, "Unsupported VDI image size (size is 0x2000000004000, max supported is 0x1fffff8000000)"
      ),
      (76, 0, "image type 0"), (76, 5, "image type 5"),
      (424, 1, "unsupported VDI image (non-NULL link UUID)"),
      (440, 1, "unsupported VDI image (non-NULL parent UUID)"), (76, 4, "does not say to which parent"),
      (76, 3, "does not say to which parent"),
    ] as [(Int, UInt32, String)])
  func impossibleValueIsRefusedInWords(_ offset: Int, _ value: UInt32, _ words: String) {
    let error = #expect(throws: EngineError.self) { try Self.sound.with(offset, value).open() }
    #expect(error?.message.contains(words) == true, "\(error?.message ?? "")")
  }

  /// The same sentence as QEMU, for images of its block size.
  @Test(
    arguments: [
      (68, 0), (340, 1), (344, 1), (360, 4096), (384, 0xffff_ffff), (384, 1), (64, 7), (424, 1), (440, 1),
      (372, 7),
    ] as [(Int, UInt32)])
  func refusalsHaveTheJudgesWords(_ offset: Int, _ value: UInt32) throws {
    let image = VDIBytes(blockSize: 1 << 20, entries: [0, VDIBytes.free]).with(offset, value)
    try TemporaryFolder.with { folder in
      let path = try folder.write(image.bytes, to: "disk.vdi")
      let error = #expect(throws: EngineError.self) { try ImageOpener.open(path, OpenOptions(format: "vdi")) }
      let judged = try ReferenceTool.qemuImg.run(["info", "-f", "vdi", path])
      #expect(judged.stderrText == "qemu-img: Could not open '\(path)': \(error?.message ?? "")\n")
    }
  }

  @Test func truncatedHeadsAndOtherFilesAreNotClaimed() throws {
    let head = Array(Self.sound.bytes.prefix(512))
    for count in [0, 1, 64, 67] {
      let score = try Array(head.prefix(count)).parsed { (span) throws(EngineError) in
        VDIFormat.probe(span, path: "disk.vdi")
      }
      #expect(score == .none)
    }
    #expect(throws: EngineError.self) { try VDIBytes(Array(head.prefix(300))).open() }
    let zeros = try [UInt8](repeating: 0, count: 2048).parsed { (span) throws(EngineError) in
      VDIFormat.probe(span, path: "disk.vdi")
    }
    #expect(zeros == .none)
  }

  /// Sizes that are no multiple of 512 were recorded by some programs; the disk is filled up to whole sectors.
  @Test func oddDiskSizeIsFilledUp() throws {
    let image = VDIBytes(entries: [0, 1], diskSize: 4097)
    #expect(try image.open().virtualSize == 4608)
  }

  /// What the header has beyond the fields that are known here stays as it is.
  @Test func otherHeaderBytesAreKept() throws {
    var image = Self.sound
    for offset in Array(84..<340) + Array(456..<512) + [80, 348, 352, 356, 364] { image.bytes[offset] = 0x5a }
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(store, format: VDIFormat.self, access: .readWrite)
    try chain.writeBytes([9], at: 4096)
    try chain.close()
    try chain.resize(to: 5 * 4096)
    try chain.close()
    let after = VDIBytes(store.snapshot)
    #expect(after.field(388) == 3 && after.field(384) == 5)
    for offset in Array(0..<340) + Array(348..<360) + Array(364..<368) + Array(456..<512) where offset != 76 {
      #expect(after.bytes[offset] == image.bytes[offset], "byte \(offset)")
    }
  }
}
