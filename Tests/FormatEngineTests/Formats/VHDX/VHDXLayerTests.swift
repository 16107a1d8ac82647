import TestSupport
import Testing

@testable import FormatEngine

private let mebibyte = 1 << 20

@Suite struct VHDXLayerTests {
  @Test func everyStateOfABlockIsRead() throws {
    var image = try VHDXBytes(size: 8 * mebibyte)
    image.append(mebibytes: 2, of: 7)
    let states: [UInt64] = [0, 1, 2, 3, 5, 6, 6, 0]
    for (index, state) in states.enumerated() {
      image.setEntry(index, state, mebibyte: state == 6 ? UInt64(index - 1) : 0)
    }
    let chain = try image.open()
    let expected = states.flatMap { [UInt8](repeating: $0 == 6 ? 7 : 0, count: mebibyte) }
    #expect(ModelDisk.firstDifference(try chain.readAll(), expected) == nil)
    let extents = try chain.allExtents().map { "\($0.start >> 20)+\($0.located.extent.length >> 20)" }
    // Zeros are joined, and so are blocks that follow each other in the file.
    #expect(extents == ["0+1", "1+4", "5+2", "7+1"])
  }

  @Test func damagedEntryFailsItsOwnBlockOnly() throws {
    for (state, place) in [(4, 4), (7, 4), (6, 0), (6, 1), (6, 3), (6, 99), (6, (1 << 44) - 1)]
      as [(UInt64, UInt64)]
    {
      var image = try VHDXBytes()
      image.append(mebibytes: 2, of: 7)
      image.setEntry(0, 6, mebibyte: 4)
      image.setEntry(1, state, mebibyte: place)
      image.setEntry(2, 6, mebibyte: 5)
      let chain = try image.open()
      #expect(try chain.readBytes(at: 0, count: mebibyte).holdsOnly(7))
      let error = #expect(throws: EngineError.self) { try chain.readBytes(at: UInt64(mebibyte), count: 1) }
      #expect(error?.code == .corrupt, "\(state) \(place)")
      #expect(try chain.readBytes(at: UInt64(2 * mebibyte), count: mebibyte).holdsOnly(7))
    }
  }

  /// Nothing is written to an image in which a write could reach another block's bytes.
  @Test(arguments: [(6, 4), (6, 99), (4, 0)] as [(UInt64, UInt64)])
  func damagedBATIsNotWrittenTo(_ state: UInt64, _ place: UInt64) throws {
    var image = try VHDXBytes()
    image.append(mebibytes: 1, of: 7)
    image.setEntry(0, 6, mebibyte: 4)
    image.setEntry(1, state, mebibyte: place)
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(store, format: VHDXFormat.self, access: .readWrite)
    let error = #expect(throws: EngineError.self) { try chain.writeBytes([1], at: UInt64(2 * mebibyte)) }
    #expect(error?.message.contains("not written to") == true)
    try chain.close()
    #expect(store.snapshot == image.bytes)
  }

  /// Random changes, in blocks of any size, sectors of both sizes, over a parent and without one.
  @Test(arguments: [1, 2, 32, 256], [512, 4096])
  func anyGeometryReadsLikeTheModel(_ blockMebibytes: Int, _ sectorSize: Int) throws {
    for isDifferencing in [false, true] {
      try TemporaryFolder.with { folder in
        var random = SeededRandom.fromEnvironment(or: UInt64(blockMebibytes * 7 + sectorSize))
        let size = 5 * mebibyte + 3 * 4096
        var model = ModelDisk(byteCount: size)
        var parent: VHDXParentLocator?
        if isDifferencing {
          model = ModelDisk(random.bytes(size))
          let file = try FileStore.create(folder.file("p.vhdx"), cache: .unflushed)
          try VHDXBytes.new(size, 2 * mebibyte, sectorSize).write(to: file)
          file.unlock()
          let chain = try Self.open(folder.file("p.vhdx"), .readWrite)
          try chain.writeBytes(model.bytes, at: 0)
          try chain.close()
          let guid = try VHDXHeader.readCurrent(from: file).0.dataWriteGuid
          parent = try VHDXParentLocator(name: "p.vhdx", linkage: guid)
        }
        let file = try FileStore.create(folder.file("x.vhdx"), cache: .unflushed)
        try VHDXBytes.new(size, blockMebibytes * mebibyte, sectorSize, false, parent).write(to: file)
        file.unlock()
        for session in 0..<2 {
          let chain = try Self.open(folder.file("x.vhdx"), .readWrite)
          for _ in 0..<14 {
            let range = random.range(in: size, most: 400_000, unit: sectorSize)
            switch random.below(5) {
            case 0:
              try chain.writeZeros(at: UInt64(range.lowerBound), count: UInt64(range.count))
              model.writeZeros(at: range.lowerBound, count: range.count)
            case 1 where session > 0:
              let block = random.below(3) * 2 * mebibyte
              try chain.writeZeros(at: UInt64(block), count: UInt64(min(2 * mebibyte, size - block)))
              model.writeZeros(at: block, count: min(2 * mebibyte, size - block))
            default:
              let bytes = random.fill(range.count)
              try chain.writeBytes(bytes, at: UInt64(range.lowerBound))
              model.write(bytes, at: range.lowerBound)
            }
          }
          #expect(ModelDisk.firstDifference(try chain.readAll(), model.bytes) == nil, "\(random)")
          try chain.close()
          let again = try Self.open(folder.file("x.vhdx"))
          #expect(ModelDisk.firstDifference(try again.readAll(), model.bytes) == nil, "\(random)")
          let report = try (again.top as? any Checkable)?.check(progress: .none)
          #expect(report?.corruptions == 0, "\(report?.findings.first ?? "")")
        }
      }
    }
  }

  static func open(_ path: String, _ access: FileAccess = .readOnly) throws -> ImageChain {
    var options = OpenOptions(format: "vhdx", access: access)
    options.cache = .unflushed
    return try ImageOpener.open(path, options)
  }

  /// A block is partially present until its last sector is written.
  @Test func blockBecomesFullSectorBySector() throws {
    let parent = try VHDXParentLocator(name: "p.vhdx", linkage: .new(.unique, for: "a test"))
    let store = MemoryStore(try VHDXBytes(size: mebibyte, sectorSize: 4096, parent: parent).bytes)
    let chain = try ImageChain.over(store, format: VHDXFormat.self, access: .readWrite)
    for sector in (0..<256).reversed() {
      try chain.writeBytes([UInt8](repeating: 9, count: 4096), at: UInt64(sector * 4096))
      if sector == 100 {
        try chain.flush()
        #expect(VHDXBytes(store.snapshot).entry(0).state == .partiallyPresent)
        // Payload blocks of a chunk of 32 GiB come before its bitmap.
        #expect(VHDXBytes(store.snapshot).entry(32768).state == .fullyPresent)
      }
    }
    try chain.close()
    #expect(VHDXBytes(store.snapshot).entry(0).state == .fullyPresent)
    #expect(try chain.readAll().holdsOnly(9))
  }

  /// What a guest lets go of, and what it makes zeros, has the state that the specification has for it.
  @Test func zerosAndDiscardsHaveTheirStates() throws {
    var image = try VHDXBytes()
    image.append(mebibytes: 3, of: 7)
    for index in 0..<3 { image.setEntry(index, 6, mebibyte: UInt64(4 + index)) }
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(store, format: VHDXFormat.self, access: .readWrite)
    try chain.writeZeros(at: 0, count: UInt64(mebibyte))
    try chain.discard(at: UInt64(mebibyte), count: UInt64(mebibyte))
    try chain.flush()
    // Room that was let go of is used again, and what stood there does not come back.
    try chain.writeBytes([5], at: 10)
    try chain.close()
    let now = VHDXBytes(store.snapshot)
    #expect(now.bytes.count == image.bytes.count)
    #expect(now.entry(0).state == .fullyPresent && now.entry(1) == VHDXEntry(.unmapped))
    #expect(try chain.readBytes(at: 0, count: mebibyte).filter { $0 != 0 } == [5])
    #expect(try chain.readBytes(at: UInt64(2 * mebibyte), count: mebibyte).holdsOnly(7))
  }

  @Test func fixedImageKeepsItsRoom() throws {
    let image = try VHDXBytes(isFixed: true)
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(store, format: VHDXFormat.self, access: .readWrite)
    try chain.writeBytes([UInt8](repeating: 3, count: 2 * mebibyte), at: 0)
    try chain.writeZeros(at: 0, count: UInt64(mebibyte))
    try chain.discard(at: UInt64(mebibyte), count: UInt64(mebibyte))
    try chain.close()
    let now = VHDXBytes(store.snapshot)
    for index in 0..<3 { #expect(now.entry(index) == image.entry(index)) }
    #expect(try chain.readBytes(at: 0, count: mebibyte).holdsOnly(0))
  }

  /// QEMU wants room for more entries than a disk without any block has.
  @Test(arguments: [1, 8, 32]) func emptyDiskIsOneForTheJudge(blockMiB: Int) throws {
    try TemporaryFolder.with { folder in
      let path = folder.file("empty.vhdx")
      let store = try FileStore.create(path, emptying: true, cache: .unflushed)
      try VHDXBytes.new(0, blockMiB << 20, 512).write(to: store)
      store.unlock()
      #expect(try ReferenceTool.content(of: path, format: "vhdx", in: folder) == [])
      let chain = try ImageChain.over(store, format: VHDXFormat.self, access: .readWrite)
      #expect(chain.virtualSize == 0)
      try chain.resize(to: 3 * MiB)
      try chain.writeBytes([UInt8](repeating: 4, count: 512), at: MiB)
      try chain.close()
      let content = try ReferenceTool.content(of: path, format: "vhdx", in: folder)
      #expect(content.count == 3 << 20 && content[1 << 20] == 4)
    }
  }

  @Test func sessionGivesNewIdentifiers() throws {
    let image = try VHDXBytes()
    let store = MemoryStore(image.bytes)
    do {
      let chain = try ImageChain.over(store, format: VHDXFormat.self, access: .readWrite)
      _ = try chain.readAll()
      try chain.close()
    }
    #expect(store.snapshot == image.bytes)
    let chain = try ImageChain.over(store, format: VHDXFormat.self, access: .readWrite)
    let old = try image.header
    try chain.writeBytes([1], at: 0)
    let begun = try VHDXBytes(store.snapshot).header
    #expect(begun.fileWriteGuid != old.fileWriteGuid && begun.dataWriteGuid != old.dataWriteGuid)
    #expect(!begun.hasLog && begun.sequenceNumber == old.sequenceNumber + 1)
    try chain.flush()
    let flushed = try VHDXBytes(store.snapshot).header
    #expect(flushed.hasLog && flushed.dataWriteGuid == begun.dataWriteGuid)
    try chain.writeBytes([1], at: 5)
    try chain.close()
    let closed = try VHDXBytes(store.snapshot).header
    #expect(!closed.hasLog && closed.dataWriteGuid == begun.dataWriteGuid)
  }
}
