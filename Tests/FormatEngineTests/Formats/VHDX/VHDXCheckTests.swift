import TestSupport
import Testing

@testable import FormatEngine

private let mebibyte = 1 << 20

@Suite struct VHDXCheckTests {
  private static func report(_ image: VHDXBytes) throws -> CheckReport {
    let layer = try #require(try image.open().top as? any Checkable)
    return try layer.check(progress: .none)
  }

  @Test func entriesThatCannotBeTrueAreFound() throws {
    var good = try VHDXBytes(size: 4 * mebibyte)
    good.append(mebibytes: 2, of: 7)
    good.setEntry(0, 6, mebibyte: 4)
    #expect(try Self.report(good) == CheckReport())
    func expect(_ words: String, _ state: UInt64, _ place: UInt64) throws {
      var image = good
      image.setEntry(2, state, mebibyte: place)
      let report = try Self.report(image)
      #expect(report.corruptions == 1 && report.findings.first?.contains(words) == true, "\(report.findings)")
    }
    try expect("where something else is", 6, 4)
    try expect("where something else is", 6, 0)
    try expect("where something else is", 6, 1)
    try expect("where something else is", 6, 2)
    try expect("start offset 6291456 points after end of file (6291456)", 6, 6)
    try expect("offset overflow", 6, (1 << 44) - 1)
    try expect("reserved state 4", 4, 0)
    try expect("no parent", 7, 5)
    var short = good
    short.setEntry(2, 6, mebibyte: 5)
    short.bytes.removeLast(512)
    #expect(try Self.report(short).findings.first?.contains("end offset") == true)
  }

  /// A differencing disk whose first block is partially present. The entry of its bitmap follows those of 4096 blocks.
  private static func child(bitmapEntry: UInt64) throws -> VHDXBytes {
    let locator = try VHDXParentLocator(name: "p.vhdx", linkage: VHDXGuid(1, 2, 3, 4))
    var image = try VHDXBytes(size: 2 * mebibyte, parent: locator)
    image.append(mebibytes: 2, of: 7)
    image.setEntry(0, 7, mebibyte: 4)
    image.put(bitmapEntry, at: VHDXBytes.bat + 8 * 4096)
    return image
  }

  @Test func bitmapThatLiesNowhereIsAnError() throws {
    #expect(try Self.report(Self.child(bitmapEntry: 5 << 20 | 6)) == CheckReport())
    let nowhere: [UInt64] = [
      0, 5 << 20 | 2, 6 << 20 | 6, 6, 1 << 20 | 6, 0x7ff0 << 48 | 6, UInt64.max << 20 | 6,
    ]
    for entry in nowhere {
      let image = try Self.child(bitmapEntry: entry)
      #expect(throws: EngineError.self, "\(entry)") { try image.open().readBytes(at: 0, count: 512) }
      #expect(try Self.report(image).corruptions > 0, "\(entry)")
    }
  }

  /// Two blocks in one place: nobody can say whose it is, so the file, whose children know its ids, stays as it is.
  @Test func whatCannotBeMendedIsNotWritten() throws {
    var image = try VHDXBytes(size: 4 * mebibyte)
    image.append(mebibytes: 1, of: 7)
    for block in [0, 1] { image.setEntry(block, 6, mebibyte: 4) }
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(store, format: VHDXFormat.self, access: .readWrite)
    let report = try #require(chain.top as? any Repairable).repair(.all, progress: .none)
    #expect(report.corruptions == 1 && report.corruptionsFixed == 0)
    #expect(store.snapshot == image.bytes)
  }

  /// A sector bitmap takes 1 MiB, whatever the blocks take.
  @Test func nextBlockFollowsTheLastBitmap() throws {
    let locator = try VHDXParentLocator(name: "p.vhdx", linkage: VHDXGuid(1, 2, 3, 4))
    let store = MemoryStore(
      try VHDXBytes(size: 64 * mebibyte, blockSize: 32 * mebibyte, parent: locator).bytes)
    for block: UInt64 in [0, 1] {
      let chain = try ImageChain.over(store, format: VHDXFormat.self, access: .readWrite)
      try chain.writeBytes([UInt8](repeating: 1, count: 4096), at: block * 32 * MiB)
      let place = try chain.extent(at: block * 32 * MiB, limit: 4096).extent.hostOffset
      #expect(place == (block == 0 ? 4 * MiB : 37 * MiB))
      try chain.close()
    }
  }

  /// The judge finds the same entries that lie outside of the file.
  @Test func judgeAgreesOnEntriesOutsideOfTheFile() throws {
    try TemporaryFolder.with { folder in
      var image = try VHDXBytes(size: 4 * mebibyte)
      image.append(mebibytes: 1, of: 7)
      image.setEntry(0, 6, mebibyte: 4)
      #expect(try ReferenceTool.check(folder.write(image.bytes, to: "a"), format: "vhdx").corruptions == 0)
      for (place, size) in [(5, 0), (9, 0), (4, 512)] as [(UInt64, Int)] {
        var bad = image
        bad.setEntry(0, 0)
        bad.setEntry(1, 6, mebibyte: place)
        bad.bytes.removeLast(size)
        let verdict = try ReferenceTool.check(folder.write(bad.bytes, to: "b"), format: "vhdx")
        #expect(try UInt64(verdict.corruptions) == Self.report(bad).corruptions, "\(place): \(verdict.text)")
      }
    }
  }

  @Test func entriesThatPointNowhereAreMended() throws {
    var image = try VHDXBytes(size: 4 * mebibyte)
    image.append(mebibytes: 1, of: 7)
    image.setEntry(0, 6, mebibyte: 4)
    image.setEntry(1, 6, mebibyte: 40)
    image.setEntry(2, 6, mebibyte: 4)
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(store, format: VHDXFormat.self, access: .readWrite, isForInspection: true)
    let layer = try #require(chain.top as? any Repairable)
    #expect(try layer.repair(.leaks, progress: .none).corruptionsFixed == 0)
    let report = try layer.repair(.all, progress: .none)
    // Two blocks in one place stay as they are.
    #expect(report.corruptionsFixed == 1 && report.corruptions == 1)
    let now = VHDXBytes(store.snapshot)
    #expect(now.entry(1) == VHDXEntry(.zero) && now.entry(2) == image.entry(2))
    #expect(try !now.header.hasLog)
  }

  /// As qemu-img: a check that must not write says how the log is replayed; that counts as one thing mended.
  @Test(.enabled(if: Samples.areHere)) func logOfASampleIsReplayedByRepair() throws {
    try TemporaryFolder.with { folder in
      let path = try Samples.unpack("log-replay.vhdx", into: folder)
      var options = OpenOptions()
      options.isForInspection = true
      do {
        let layer = try #require(try ImageOpener.open(path, options).top as? any Repairable)
        let error = #expect(throws: EngineError.self) { try layer.check(progress: .none) }
        #expect(error?.message.contains("qemu-img check -r all '\(path)'") == true)
        #expect((layer as? any SelfDescribing)?.isDirty == true)
      }
      options.access = .readWrite
      do {
        let layer = try #require(try ImageOpener.open(path, options).top as? any Repairable)
        let report = try layer.repair(.all, progress: .none)
        #expect(report.corruptionsFixed == 1 && report.corruptions == 0)
      }
      let verdict = try ReferenceTool.check(path, format: "vhdx")
      #expect(verdict.corruptions == 0, "\(verdict.text)")
      let theirs = try ReferenceTool.qemuImg.run(["compare", path, path], folder: folder.path)
      #expect(theirs.status == 0)
    }
  }
}
