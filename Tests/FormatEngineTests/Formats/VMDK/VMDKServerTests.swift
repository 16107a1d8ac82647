import TestSupport
import Testing

@testable import FormatEngine

/// Extents of ESX servers: what snapshots of virtual machines change there.
@Suite struct VMDKServerTests {
  private static let size = 4 << 20

  /// A delta over a flat disk, as `image.vmdk`; gives back what the guest reads.
  private static func makeCOWD(grainSectors: Int, in folder: TemporaryFolder) throws -> ModelDisk {
    var model = ModelDisk(try VMDKServerImages.makeBase(size: size, in: folder))
    var random = SeededRandom(seed: 32)
    let grain = grainSectors * 512
    var grains: [Int: [UInt8]] = [:]
    for number in [0, 1, 2, 7, 8, size / grain - 1, size / grain / 2] { grains[number] = random.bytes(grain) }
    for (number, bytes) in grains { model.write(bytes, at: number * grain) }
    let file = VMDKServerImages.cowd(size: size, grainSectors: grainSectors, grains)
    try folder.write(file, to: "image-delta.vmdk")
    try folder.write(
      VMDKServerImages.descriptor(
        "vmfsSparse", "VMFSSPARSE", size: size, "image-delta.vmdk", parent: "base.vmdk"),
      to: "image.vmdk")
    return model
  }

  private static func makeSpaceEfficient(in folder: TemporaryFolder, isDirty: Bool = false) throws
    -> ModelDisk
  {
    let size = 20 << 20
    var model = ModelDisk(try VMDKServerImages.makeBase(size: size, in: folder))
    var random = SeededRandom(seed: 33)
    var grains: [Int: [UInt8]] = [:]
    for number in [0, 1, 3, 500, 4095, 4096, 5119] { grains[number] = random.bytes(4096) }
    for (number, bytes) in grains { model.write(bytes, at: number * 4096) }
    let marks: [Int: UInt64] = [10: 1, 11: 2, 12: 2, 4100: 1]
    for number in marks.keys { model.writeZeros(at: number * 4096, count: 4096) }
    try folder.write(
      VMDKServerImages.spaceEfficient(size: size, grains, marks: marks, isDirty: isDirty), to: "image-se.vmdk"
    )
    try folder.write(
      VMDKServerImages.descriptor("seSparse", "SESPARSE", size: size, "image-se.vmdk", parent: "base.vmdk"),
      to: "image.vmdk")
    return model
  }

  private static func judgeAgrees(_ model: ModelDisk, in folder: TemporaryFolder) throws {
    let content = try ReferenceTool.content(of: folder.file("image.vmdk"), format: "vmdk", in: folder)
    #expect(ModelDisk.firstDifference(content, model.bytes) == nil)
    try ReferenceTool.qemuImg("check", "-q", folder.file("image.vmdk"))
  }

  private static func check(_ path: String) throws -> CheckReport {
    let chain = try ImageOpener.open(path)
    return try #require(chain.top as? any Checkable).check(progress: .none)
  }

  // MARK: COWD

  @Test(arguments: [1, 8, 128])
  func copyOnWriteExtentIsReadAndWritten(_ grainSectors: Int) throws {
    try TemporaryFolder.with { folder in
      var model = try Self.makeCOWD(grainSectors: grainSectors, in: folder)
      let path = folder.file("image.vmdk")
      try Self.judgeAgrees(model, in: folder)
      #expect(ModelDisk.firstDifference(try ImageOpener.open(path).readAll(), model.bytes) == nil)
      #expect(try Self.check(path) == CheckReport())
      var random = SeededRandom(seed: 34)
      do {
        let chain = try ImageOpener.open(path, OpenOptions(access: .readWrite))
        #expect(chain.top.clusterSize == UInt64(grainSectors) * 512)
        for _ in 0..<40 {
          let range = random.range(in: Self.size, most: 100_000, unit: 4096)
          if random.oneIn(4) {
            try chain.writeZeros(at: UInt64(range.lowerBound), count: UInt64(range.count))
            model.writeZeros(at: range.lowerBound, count: range.count)
          } else {
            let bytes = random.bytes(range.count)
            try chain.writeBytes(bytes, at: UInt64(range.lowerBound))
            model.write(bytes, at: range.lowerBound)
          }
        }
        #expect(ModelDisk.firstDifference(try chain.readAll(), model.bytes) == nil)
        try chain.close()
      }
      #expect(ModelDisk.firstDifference(try ImageOpener.open(path).readAll(), model.bytes) == nil)
      try Self.judgeAgrees(model, in: folder)
      #expect(try Self.check(path) == CheckReport())
      // What the server puts into the file next goes behind all that is there.
      let file = try Files.read(folder.file("image-delta.vmdk"))
      #expect(VMDKImages.number(file, at: 28, width: 4) == UInt64(file.count / 512))
      #expect(try Files.read(folder.file("base-flat.vmdk")).count == Self.size)
    }
  }

  /// The last table may be cut off behind the entries that the disk needs: new grains lie behind the whole of it.
  @Test func newGrainsLieBehindATableThatIsCutOff() throws {
    try TemporaryFolder.with { folder in
      let size = 1 << 20
      let whole = VMDKServerImages.cowd(size: size, grainSectors: 1, [0: [UInt8](repeating: 1, count: 512)])
      let table = Int(VMDKImages.number(whole, at: 2048, width: 4)) * 512
      // An empty one, which ends with the entry of the disk's last grain.
      var bytes = Array(whole[..<(table + size / 512 * 4)])
      VMDKImages.put(0, into: &bytes, at: table, width: 4)
      VMDKImages.put(UInt64(bytes.count / 512), into: &bytes, at: 28, width: 4)
      try folder.write(bytes, to: "image-delta.vmdk")
      try folder.write(
        VMDKServerImages.descriptor("vmfsSparse", "VMFSSPARSE", size: size, "image-delta.vmdk"),
        to: "image.vmdk")
      var random = SeededRandom(seed: 35)
      let disk = random.bytes(size)
      let chain = try ImageOpener.open(folder.file("image.vmdk"), OpenOptions(access: .readWrite))
      try chain.writeBytes(disk, at: 0)
      try chain.close()
      try Self.judgeAgrees(ModelDisk(disk), in: folder)
      #expect(try ImageOpener.open(folder.file("image.vmdk")).readAll() == disk)
      #expect(try Self.check(folder.file("image.vmdk")) == CheckReport())
    }
  }

  /// The header's place of the next grain covers a grain before anything refers to it.
  @Test func freeSectorIsRaisedBeforeTables() throws {
    try TemporaryFolder.with { folder in
      _ = try Self.makeCOWD(grainSectors: 1, in: folder)
      let before = try Files.read(folder.file("image-delta.vmdk"))
      let chain = try ImageOpener.open(folder.file("image.vmdk"), OpenOptions(access: .readWrite))
      try chain.writeBytes([UInt8](repeating: 1, count: 5120), at: 100 * 512)
      let now = try Files.read(folder.file("image-delta.vmdk"))
      #expect(
        VMDKImages.number(now, at: 28, width: 4) >= VMDKImages.number(before, at: 28, width: 4) + 10)
      #expect(Array(now[2048..<4096]) == Array(before[2048..<4096]))
      try chain.close()
    }
  }

  @Test func fieldsOfTheHeaderAreReadOrRefused() throws {
    try TemporaryFolder.with { folder in
      _ = try Self.makeCOWD(grainSectors: 1, in: folder)
      let good = try Files.read(folder.file("image-delta.vmdk"))
      let path = folder.file("image.vmdk")
      for offset in [4, 8, 12, 16, 20, 24, 28] + [
        2048, 2052, Int(VMDKImages.number(good, at: 2048, width: 4)) * 512,
      ] {
        for value in [
          0, 1, 2, 3, 4, 5, 8191, 8192, 8193, 1 << 20, 1 << 21, 1 << 22, 0x7fff_ffff, 0xffff_ffff,
        ]
          as [UInt64]
        {
          var bytes = good
          VMDKImages.put(value, into: &bytes, at: offset, width: 4)
          try folder.write(bytes, to: "image-delta.vmdk")
          try Deadline.within(seconds: 20, "\(offset) = \(value)") {
            if let chain = try? ImageOpener.open(path) {
              for place in [0, 512, 2 << 20, UInt64(Self.size) - 512] {
                _ = try? chain.readBytes(at: place, count: 512)
              }
            }
            _ = try? Self.check(path)
            if let chain = try? ImageOpener.open(path, OpenOptions(access: .readWrite)) {
              try? chain.writeBytes([1, 2, 3], at: 1 << 20)
              try? chain.close()
            }
            // Whatever is written, the header's own fields stay.
            let after = try Files.read(folder.file("image-delta.vmdk"))
            #expect(Array(after[..<28]) == Array(bytes[..<28]), "\(offset) = \(value)")
          }
        }
      }
      for (offset, value, words) in [
        (4, 2, "Unsupported version 2 of a COWD extent"),
        (16, 3, "Invalid granularity, image may be corrupt"),
        (24, 1, "The grain directory has 1 entries, but the disk needs 2"),
        (20, 3, "The grain directory lies in the header of the extent"),
      ] as [(Int, UInt64, String)] {
        var bytes = good
        VMDKImages.put(value, into: &bytes, at: offset, width: 4)
        try folder.write(bytes, to: "image-delta.vmdk")
        let error = #expect(throws: EngineError.self) { try ImageOpener.open(path) }
        #expect(error?.message.hasSuffix(words) == true, "\(String(describing: error))")
      }
    }
  }

  @Test func extentAloneIsNoImage() throws {
    let bytes = VMDKServerImages.cowd(size: Self.size, grainSectors: 1, [0: [1]])
    let error = #expect(throws: EngineError.self) { try VMDKImages.open(bytes) }
    #expect(error?.message.contains("descriptor") == true)
  }

  // MARK: Space-efficient

  @Test func spaceEfficientExtentIsRead() throws {
    try TemporaryFolder.with { folder in
      let model = try Self.makeSpaceEfficient(in: folder)
      let path = folder.file("image.vmdk")
      try Self.judgeAgrees(model, in: folder)
      let chain = try ImageOpener.open(path)
      #expect(chain.top.clusterSize == 4096)
      #expect(ModelDisk.firstDifference(try chain.readAll(), model.bytes) == nil)
      #expect(try Self.check(path) == CheckReport())
      try chain.close()
      let error = #expect(throws: EngineError.self) {
        try ImageOpener.open(path, OpenOptions(access: .readWrite))
      }
      #expect(error?.message == "No write support for seSparse images available")
    }
  }

  /// The judge refuses it.
  @Test func journalThatWasNotReplayedIsNoted() throws {
    try TemporaryFolder.with { folder in
      let model = try Self.makeSpaceEfficient(in: folder, isDirty: true)
      let notes = Guarded<[String]>([])
      var options = OpenOptions()
      options.note = { note in notes.withLock { $0.append(note) } }
      #expect(try ImageOpener.open(folder.file("image.vmdk"), options).readAll() == model.bytes)
      let told = notes.withLock { $0 }
      #expect(told.count == 1 && told.first?.contains("journal") == true)
    }
  }

  /// Numbers of grains are wider than 12 bits: the low ones stand above the high ones.
  @Test func grainsBeyondTheLowBitsAreFound() throws {
    try TemporaryFolder.with { folder in
      let size = 20 << 20
      var model = ModelDisk(try VMDKServerImages.makeBase(size: size, in: folder))
      var grains: [Int: [UInt8]] = [:]
      for number in 0..<4200 {
        grains[number] = [UInt8](repeating: UInt8(truncatingIfNeeded: number % 251), count: 4096)
        model.write(grains[number] ?? [], at: number * 4096)
      }
      try folder.write(VMDKServerImages.spaceEfficient(size: size, grains), to: "image-se.vmdk")
      try folder.write(
        VMDKServerImages.descriptor("seSparse", "SESPARSE", size: size, "image-se.vmdk", parent: "base.vmdk"),
        to: "image.vmdk")
      try Self.judgeAgrees(model, in: folder)
      let chain = try ImageOpener.open(folder.file("image.vmdk"))
      #expect(ModelDisk.firstDifference(try chain.readAll(), model.bytes) == nil)
      #expect(try chain.extent(at: 0, limit: UInt64(size)).extent.length == 16 << 20)
    }
  }

  private static let wideValues: [UInt64] = [
    0, 1, 2, 8, 64, 0xffff, 0x1_0000_0000, 0x40_0000_0000_0000, 0x1000_0000_0000_0000,
    0x1000_0000_0000_0001, 0x1000_0000_0000_0002, 0x2000_0000_0000_0000, 0x3000_0000_0000_0000,
    0x3fff_0000_0000_0000, 0x3000_0100_0000_0000, 0x4000_0000_0000_0000, 0x7fff_ffff_ffff_ffff,
    0xffff_ffff_ffff_ffff, 0xffff_ffff_ffff_fff8,
  ]

  @Test func fieldsOfBothHeadersAndTablesAreReadOrRefused() throws {
    try TemporaryFolder.with { folder in
      _ = try Self.makeSpaceEfficient(in: folder)
      let good = try Files.read(folder.file("image-se.vmdk"))
      let path = folder.file("image.vmdk")
      let table = Int(VMDKImages.number(good, at: 144, width: 8)) * 512
      for offset in Array(stride(from: 0, to: 208, by: 8)) + [
        512, 536, 2048, 2056, table, table + 8, table + 80,
      ] {
        for value in Self.wideValues {
          var bytes = good
          VMDKImages.put(value, into: &bytes, at: offset, width: 8)
          try folder.write(bytes, to: "image-se.vmdk")
          Deadline.within(seconds: 20, "\(offset) = \(value)") {
            guard let chain = try? ImageOpener.open(path) else { return }
            for place: UInt64 in [0, 4096, 40960, 16 << 20, (20 << 20) - 512] {
              _ = try? chain.extent(at: place, limit: 512)
              _ = try? chain.readBytes(at: place, count: 512)
            }
            _ = try? Self.check(path)
          }
        }
      }
      let wrong: [(Int, UInt64)] = [
        (table, 0x4000_0000_0000_0000), (table + 8, 0x3000_0000_4000_0000), (2048, 0x1000_0000_0000_0009),
      ]
      for (offset, value) in wrong {
        var bytes = good
        VMDKImages.put(value, into: &bytes, at: offset, width: 8)
        try folder.write(bytes, to: "image-se.vmdk")
        let chain = try ImageOpener.open(path)
        #expect(throws: EngineError.self) {
          try chain.readBytes(at: offset == table + 8 ? 4096 : 0, count: 512)
        }
        _ = try chain.readBytes(at: 17 << 20, count: 512)
        #expect(try Self.check(path).corruptions > 0)
      }
      for (offset, words) in [
        (0, "Bad const header magic: 0x0000000000000077"), (8, "Unsupported version: 0x0000000000000077"),
        (24, "Unsupported grain size: 119"), (32, "Unsupported grain table size: 119"),
        (40, "Unsupported flags: 0x0000000000000077"), (512, "Bad volatile header magic: 0x0000000000000077"),
      ] {
        var bytes = good
        VMDKImages.put(0x77, into: &bytes, at: offset, width: 8)
        try folder.write(bytes, to: "image-se.vmdk")
        let error = #expect(throws: EngineError.self) { try ImageOpener.open(path) }
        #expect(error?.message.hasSuffix(words) == true)
        let judge = try ReferenceTool.qemuImg.run(["info", path])
        #expect(judge.stderrText.contains(words))
      }
    }
  }

  /// One table for the whole disk, again and again: a check sees it once.
  @Test func tableThatIsUsedTwiceIsFound() throws {
    try TemporaryFolder.with { folder in
      _ = try Self.makeSpaceEfficient(in: folder)
      var bytes = try Files.read(folder.file("image-se.vmdk"))
      VMDKImages.put(1 << 60, into: &bytes, at: 2056, width: 8)
      try folder.write(bytes, to: "image-se.vmdk")
      #expect(try Self.check(folder.file("image.vmdk")).corruptions == 1)
    }
  }
}
