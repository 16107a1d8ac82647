import FormatEngine
import TestSupport
import Testing

/// Images that are made to do harm: each header field at every value that could hurt, and entries that lead where they
/// must not.
struct VPCHostileTests {
  private static let byteCount = 200 * 1024

  private static let image: [UInt8] = {
    var random = SeededRandom(seed: 71)
    return (try? VPCImage().build(byteCount: byteCount, &random).file) ?? []
  }()

  /// The image with a change, its checksums right again.
  private func changed(_ bytes: [UInt8] = image, _ change: (inout [UInt8]) -> Void) -> [UInt8] {
    var bytes = bytes
    change(&bytes)
    VPCImage.sealFooter(&bytes, at: 0)
    VPCImage.sealHeader(&bytes)
    return bytes
  }

  /// Does all that can be done with it: errors or bytes, never a trap, never for long.
  private func useAll(_ bytes: [UInt8]) -> Result<ImageChain, EngineError> {
    let clock = ContinuousClock()
    var result: Result<ImageChain, EngineError> = .failure(.corrupt("not tried"))
    let time = clock.measure {
      do throws(EngineError) {
        let store = MemoryStore(bytes)
        let chain = try ImageChain.over(store, format: VPCFormat.self, access: .readWrite)
        result = .success(chain)
        // A block is whole in the file: one of 1 GiB would be held in memory here.
        if chain.virtualSize <= 16 * MiB && chain.top.clusterSize <= 16 * MiB {
          _ = try? chain.readAll()
          _ = try? chain.writeBytes([1, 2, 3], at: chain.virtualSize / 2)
          _ = try? chain.writeZeros(at: 0, count: chain.virtualSize)
          _ = try? chain.discard(at: 0, count: chain.virtualSize)
        } else {
          _ = try? chain.extent(at: chain.virtualSize / 2, limit: 4096)
        }
        try? chain.close()
        _ = try? (chain.top as? any Repairable)?.repair(.all, progress: .none)
      } catch { result = .failure(error) }
    }
    #expect(time < .seconds(5))
    return result
  }

  private func expectError(_ bytes: [UInt8], _ words: String) {
    switch useAll(bytes) {
    case .success: Issue.record("It was opened, not refused with '\(words)'")
    case .failure(let error): #expect(error.message.contains(words), "\(error.message)")
    }
  }

  private static let values32: [UInt32] = [0, 1, 2, 511, 512, 513, 1 << 30, 1 << 31, .max - 1, .max]
  private static let values64: [UInt64] = [
    0, 1, 256, 511, 512, 513, 1536, 1 << 31, 1 << 40, 1 << 62, 1 << 63, .max - 511, .max,
  ]

  @Test(arguments: [8, 12, 24, 28, 32, 36, 56, 60, 540, 544, 552 + 16], values32)
  func anyFieldOf32BitsHasAnyValue(_ offset: Int, _ value: UInt32) {
    _ = useAll(changed { $0.put(bigEndian: value, at: offset) })
  }

  @Test(arguments: [16, 40, 48, 520, 528], values64)
  func anyFieldOf64BitsHasAnyValue(_ offset: Int, _ value: UInt64) {
    _ = useAll(changed { $0.put(bigEndian: value, at: offset) })
  }

  /// CVE-2014-0142, CVE-2014-0144: in QEMU's words.
  @Test func sizesOfTheHeaderAreChecked() {
    for size: UInt32 in [0, 1, 256, 511, 513, 4097, .max] {
      expectError(changed { $0.put(bigEndian: size, at: 544) }, "Invalid block size \(size)")
    }
    for count: UInt32 in [0, 1, 49] {
      expectError(changed { $0.put(bigEndian: count, at: 540) }, "Page table too small")
    }
    for count: UInt32 in [0x2000_0000, 0x4000_0001, .max] {
      expectError(
        changed { $0.put(bigEndian: count, at: 540) }, "Max Table Entries too large (\(count))")
    }
    for offset: UInt64 in [1 << 40, 1 << 62, .max - 511, .max, 1537] {
      expectError(changed { $0.put(bigEndian: offset, at: 528) }, "Error reading pagetable")
    }
    for offset: UInt64 in [1 << 40, .max] {
      expectError(changed { $0.put(bigEndian: offset, at: 16) }, "Error reading dynamic VHD header")
    }
    expectError(changed { $0.put(bigEndian: UInt64(1024), at: 16) }, "Invalid header magic")
    expectError(changed { $0[512] = 0 }, "Invalid header magic")
    // Sizes are only the footer's to say; the geometry is the largest.
    for size: UInt64 in [.max, 1 << 62, 0xff00_0000 * 512 + 512] {
      expectError(changed { $0.put(bigEndian: size, at: 48) }, "File too large")
    }
  }

  /// 7da9623cc0: what the type says and how the file is laid out do not go together.
  @Test func typeAndLayoutHaveToGoTogether() throws {
    expectError(changed { $0.put(bigEndian: UInt32(2), at: 60) }, "footer of a fixed disk")
    for type: UInt32 in [0, 1, 5, 6, 9] {
      expectError(changed { $0.put(bigEndian: type, at: 60) }, "VHD disks of type \(type) are not supported")
    }
    // The guest of a fixed disk writes an image of its own to its first sectors.
    let fixed = VPCImage().fixed(Self.image, id: .init(repeating: 5, count: 16))
    let chain = try ImageChain.over(MemoryStore(fixed), format: VPCFormat.self)
    #expect(try chain.readAll() == Self.image)
    #expect(chain.top.backing == nil)
    // A fixed footer without a header that says dynamic.
    let noHeader = VPCImage().footer(byteCount: 4096, type: 3, id: .init(repeating: 5, count: 16))
    expectError([UInt8](repeating: 0, count: 4096) + noHeader, "Invalid header magic")
  }

  @Test func damagedFootersAreStoodForByTheirCopy() throws {
    let content = try ImageChain.over(MemoryStore(Self.image), format: VPCFormat.self).readAll()
    let tail = Self.image.count - 512
    for places in [[0], [tail], [0, tail]] {
      for damage in [0, 20, 64, 70] {
        var bytes = Self.image
        for place in places { bytes[place + damage] ^= 0xff }
        let read = try? ImageChain.over(MemoryStore(bytes), format: VPCFormat.self).readAll()
        #expect(read == (places.count == 1 ? content : nil))
      }
    }
    var both = Self.image
    both[64] ^= 1
    both[tail + 64] ^= 1
    expectError(both, "Incorrect header checksum")
    expectError([UInt8](repeating: 0, count: 4096), "invalid VPC image")
    expectError([], "invalid VPC image")
    // 511 bytes, as Virtual PC wrote before 2004.
    let old = VPCImage().fixed([UInt8](repeating: 6, count: 4096), id: .init(repeating: 5, count: 16))
      .dropLast()
    let chain = try ImageChain.over(MemoryStore(Array(old)), format: VPCFormat.self)
    #expect(try chain.readAll() == [UInt8](repeating: 6, count: 4096))
  }

  /// Entries into the header, the table, past the end: reads of their block fail, all others go on, and no write
  /// reaches what is not a block.
  @Test(arguments: [0, 1, 2, 3, 0x7fff_ffff, 0xffff_fffe])
  func entryThatLeadsSomewhereElseIsNotFollowed(_ entry: UInt32) throws {
    let bytes = changed { $0.put(bigEndian: entry, at: 1536 + 4 * 7) }
    let store = MemoryStore(bytes)
    let chain = try ImageChain.over(store, format: VPCFormat.self, access: .readWrite)
    let sound = try ImageChain.over(MemoryStore(Self.image), format: VPCFormat.self)
    for block in 0..<UInt64(50) {
      let read = try? chain.readBytes(at: block * 4096, count: 4096)
      #expect(read == (block == 7 ? nil : try sound.readBytes(at: block * 4096, count: 4096)))
    }
    #expect(throws: EngineError.self) { try chain.writeBytes([1], at: 7 * 4096) }
    try? chain.close()
    #expect(Array(store.snapshot[0..<2048]) == Array(bytes[0..<2048]))
  }

  /// Two blocks at the same place: what one of them lets go of is still the other's.
  @Test func roomOfTwoBlocksIsNotGivenAway() throws {
    let blocks = (0..<50).filter { Self.image[1536 + 4 * $0..<1540 + 4 * $0].contains { $0 != 0xff } }
    let (first, second) = (blocks[0], blocks[1])
    let bytes = changed {
      $0.replaceSubrange(1536 + 4 * second..<1540 + 4 * second, with: $0[1536 + 4 * first..<1540 + 4 * first])
    }
    let chain = try ImageChain.over(MemoryStore(bytes), format: VPCFormat.self, access: .readWrite)
    let content = try chain.readBytes(at: UInt64(first) * 4096, count: 4096)
    try chain.discard(at: UInt64(second) * 4096, count: 4096)
    try chain.flush()
    try chain.writeBytes([UInt8](repeating: 5, count: 4096), at: UInt64(second) * 4096)
    try chain.flush()
    #expect(try chain.readBytes(at: UInt64(first) * 4096, count: 4096) == content)
    #expect(try chain.readBytes(at: UInt64(second) * 4096, count: 4096).holdsOnly(5))
  }

  /// New blocks never come to lie over blocks that the file no longer has.
  @Test func truncatedImagesAreReadAsFarAsTheyGoAndNotWritten() throws {
    let content = try ImageChain.over(MemoryStore(Self.image), format: VPCFormat.self).readAll()
    for count in stride(from: 2048, to: Self.image.count - 512, by: 3079) {
      let store = MemoryStore(Array(Self.image.prefix(count)))
      let chain = try ImageChain.over(store, format: VPCFormat.self, access: .readWrite)
      for sector in stride(from: 0, to: Self.byteCount, by: 512) {
        guard let read = try? chain.readBytes(at: UInt64(sector), count: 512) else { continue }
        #expect(read == Array(content[sector..<sector + 512]))
      }
      #expect(throws: EngineError.self) { try chain.writeBytes([1], at: 0) }
      #expect(store.snapshot.count == count)
    }
  }

  @Test func tableOverTheHeaderIsRefused() {
    for offset: UInt64 in [0, 512, 1024] {
      expectError(changed { $0.put(bigEndian: offset, at: 528) }, "lies over")
    }
  }

  /// Locators past the end, of 4 GiB, without an end: passed over, as each is one of several.
  @Test(arguments: values32) func locatorsHaveAnyLength(_ value: UInt32) throws {
    var random = SeededRandom(seed: 72)
    let built = try VPCImage(isDifferencing: true).build(byteCount: Self.byteCount, &random)
    for (field, width) in [(576, 4), (580, 4), (584, 4), (592, 8)] {
      let bytes = changed(built.file) {
        if width == 4 {
          $0.put(bigEndian: value, at: 512 + field)
        } else {
          $0.put(bigEndian: UInt64(value) << 31 | UInt64(value), at: 512 + field)
        }
      }
      _ = useAll(bytes)
    }
  }

  /// A disk whose parent is itself, or whose parent's parent is.
  @Test func loopOfParentsIsRefused() throws {
    try TemporaryFolder.with { folder in
      var random = SeededRandom(seed: 73)
      var image = VPCImage(isDifferencing: true)
      image.parentID = (0..<16).map { 100 + $0 }
      image.relativeParent = ".\\loop.vhd"
      try folder.write(try image.build(byteCount: Self.byteCount, &random).file, to: "loop.vhd")
      let error = #expect(throws: EngineError.self) { try ImageOpener.open(folder.file("loop.vhd")) }
      #expect(error?.message.contains("loop") == true)
    }
  }
}
