import TestSupport
import Testing

@testable import FormatEngine

private let mebibyte = 1 << 20

@Suite struct VHDXParentTests {
  /// A parent full of ones, and a child that says where it is.
  private static func make(
    _ folder: TemporaryFolder, names: [String: String] = ["relative_path": ".\\p.vhdx"]
  )
    throws -> (parent: String, child: String)
  {
    _ = try folder.makeFolder("sub")
    let parent = folder.file("p.vhdx")
    let file = try FileStore.create(parent, cache: .unflushed)
    try VHDXBytes.new(2 * mebibyte, mebibyte, 512).write(to: file)
    file.unlock()
    let chain = try VHDXLayerTests.open(parent, .readWrite)
    try chain.writeBytes([UInt8](repeating: 1, count: 2 * mebibyte), at: 0)
    try chain.close()
    var locator = VHDXParentLocator(values: names)
    locator.values["parent_linkage"] = try VHDXHeader.readCurrent(from: file).0.dataWriteGuid.description
    let child = folder.file("c.vhdx")
    try VHDXBytes.new(2 * mebibyte, mebibyte, 512, false, locator)
      .write(to: try FileStore.create(child, cache: .unflushed))
    return (parent, child)
  }

  @Test func locatorIsReadAsItIsWritten() throws {
    let locator = try VHDXParentLocator(name: "../häuser/p.vhdx", linkage: VHDXGuid(1, 2, 3, 4))
    #expect(try VHDXParentLocator.parse(locator.serialised()) == locator)
    #expect(locator.values["relative_path"] == "..\\häuser\\p.vhdx")
    #expect(locator.linkages == [VHDXGuid(1, 2, 3, 4)])
    #expect(locator.candidates == ["../häuser/p.vhdx", "p.vhdx"])
    #expect(throws: EngineError.self) { try VHDXParentLocator(name: "a\\b", linkage: .zero) }
  }

  @Test func damagedLocatorIsRefused() throws {
    let good = try VHDXParentLocator(name: "p.vhdx", linkage: VHDXGuid(1, 2, 3, 4)).serialised()
    for count in 0..<good.count { _ = try? VHDXParentLocator.parse(Array(good.prefix(count))) }
    for (offset, value) in [(0, 1), (18, 200), (20, 60000), (23, 255), (24, 65000), (28, 255)]
      as [(Int, UInt16)]
    {
      var bytes = VHDXBytes(good)
      bytes.put(value, at: offset)
      #expect(throws: EngineError.self, "\(offset)") { try VHDXParentLocator.parse(bytes.bytes) }
    }
  }

  /// In the order of the specification; what another machine calls it is looked for beside the image.
  @Test(arguments: [
    ["relative_path": ".\\p.vhdx"], ["relative_path": "sub\\..\\p.vhdx"],
    ["relative_path": "C:\\other\\p.vhdx"],
    ["absolute_win32_path": "C:\\disks\\p.vhdx"], ["absolute_win32_path": "\\\\?\\D:\\disks\\p.vhdx"],
    ["volume_path": "\\\\?\\Volume{26A21BDA-A627-11D7-9931-806E6F6E6963}\\x\\p.vhdx"],
    ["relative_path": "..\\gone\\q.vhdx", "absolute_win32_path": "C:\\p.vhdx"],
  ])
  func parentIsFoundByAnyOfItsNames(_ names: [String: String]) throws {
    try TemporaryFolder.with { folder in
      let (_, child) = try Self.make(folder, names: names)
      let chain = try ImageOpener.open(child)
      #expect(chain.members.count == 2)
      #expect(try chain.readAll().holdsOnly(1))
    }
  }

  @Test func absoluteNameOfThisHostIsKept() throws {
    try TemporaryFolder.with { folder in
      let (parent, _) = try Self.make(folder)
      var request = CreateRequest(
        path: folder.file("sub/d.vhdx"), virtualSize: UInt64(2 * mebibyte),
        backing: BackingReference(name: parent, format: "vhdx"),
        options: OptionValues(VHDXFormat.createOptions),
        references: ReferenceOpener())
      try VHDXFormat.create(on: try FileStore.create(request.path, cache: .unflushed), request)
      #expect(try ImageOpener.open(request.path).readAll().holdsOnly(1))
      request.backing = BackingReference(name: parent, format: "raw")
      #expect(throws: EngineError.self) { try VHDXFormat.create(on: MemoryStore(), request) }
      request.backing = BackingReference(name: "gone.vhdx", format: "vhdx")
      #expect(throws: EngineError.self) { try VHDXFormat.create(on: MemoryStore(), request) }
    }
  }

  @Test func missingParentIsNamedAndItsDataCanBeGiven() throws {
    try TemporaryFolder.with { folder in
      let name = "C:\\disks\\gone.vhdx"
      let (parent, child) = try Self.make(folder, names: ["absolute_win32_path": name])
      let error = #expect(throws: EngineError.self) { try ImageOpener.open(child) }
      #expect(error?.message.contains(name) == true)
      #expect(error?.message.contains("backing.file.filename") == true)
      var options = OpenOptions()
      options.layerOptions = ["backing.file.filename": parent]
      #expect(try ImageOpener.open(child, options).readAll().holdsOnly(1))
      options.layerOptions = [:]
      options.backing = .ignore
      #expect(try ImageOpener.open(child, options).readAll().holdsOnly(0))
    }
  }

  /// Sectors that a child does not have are those of the parent as it was.
  @Test func changedOrForeignParentIsRefused() throws {
    try TemporaryFolder.with { folder in
      let (parent, child) = try Self.make(folder)
      #expect(try ImageOpener.open(child).readAll().holdsOnly(1))
      let chain = try VHDXLayerTests.open(parent, .readWrite)
      try chain.writeBytes([2], at: 0)
      try chain.close()
      let error = #expect(throws: EngineError.self) { try ImageOpener.open(child) }
      #expect(error?.message.contains("changed since") == true)
      try folder.write([UInt8](repeating: 0, count: 4096), to: "p.vhdx")
      #expect(throws: EngineError.self) { try ImageOpener.open(child) }
    }
  }

  @Test func secondLinkageIsAsGood() throws {
    try TemporaryFolder.with { folder in
      let (parent, _) = try Self.make(folder)
      let guid = try VHDXHeader.readCurrent(from: try FileStore.open(parent, access: .readOnly)).0
        .dataWriteGuid
      let locator = VHDXParentLocator(values: [
        "parent_linkage": try VHDXGuid.new(.unique, for: "a test").description,
        "parent_linkage2": guid.description,
        "relative_path": "p.vhdx",
      ])
      try VHDXBytes.new(2 * mebibyte, mebibyte, 512, false, locator)
        .write(to: try FileStore.create(folder.file("d.vhdx"), cache: .unflushed))
      #expect(try ImageOpener.open(folder.file("d.vhdx")).readAll().holdsOnly(1))
    }
  }

  @Test func policyGuardsTheParent() throws {
    try TemporaryFolder.with { folder in
      let (parent, _) = try Self.make(folder)
      let guid = try VHDXHeader.readCurrent(from: try FileStore.open(parent, access: .readOnly)).0
        .dataWriteGuid
      for name in ["../p.vhdx", parent] {
        try VHDXBytes.new(
          2 * mebibyte, mebibyte, 512, false, try VHDXParentLocator(name: name, linkage: guid)
        ).write(to: try FileStore.create(folder.file("sub/e.vhdx"), cache: .unflushed))
        var options = OpenOptions()
        #expect(try ImageOpener.open(folder.file("sub/e.vhdx"), options).members.count == 2)
        options.policy = ReferencePolicy(.folders([try AllowedFolder(folder.file("sub"))]))
        let error = #expect(throws: EngineError.self) {
          try ImageOpener.open(folder.file("sub/e.vhdx"), options)
        }
        #expect(error?.code == .forbidden)
        options.policy = ReferencePolicy(.nowhere)
        #expect(throws: EngineError.self) { try ImageOpener.open(folder.file("sub/e.vhdx"), options) }
      }
    }
  }

  /// Thousands of entries may name the same long text: only what is known is kept.
  @Test func foreignEntriesOfTheLocatorTakeNoMemory() throws {
    let good = try VHDXParentLocator(name: "p.vhdx", linkage: VHDXGuid(1, 2, 3, 4))
    var (locator, foreign) = (VHDXBytes(good.serialised()), 2000)
    let own = good.values.count
    // The texts of its own move by the room of the new entries.
    for index in 0..<own {
      for field in [0, 4] {
        let place = 20 + 12 * index + field
        locator.put(UInt32(truncatingIfNeeded: locator.number(at: place)) + UInt32(12 * foreign), at: place)
      }
    }
    var entries: [UInt8] = []
    for index in 0..<foreign {
      entries.append(littleEndian: UInt32(index))
      entries.append(littleEndian: UInt32(0))
      entries.append(littleEndian: UInt16(20_000))
      entries.append(littleEndian: UInt16(20_000))
    }
    locator.bytes.insert(contentsOf: entries, at: 20 + 12 * own)
    locator.put(UInt16(own + foreign), at: 18)
    #expect(try VHDXParentLocator.parse(locator.bytes) == good)
    foreign = try #require(try VHDXParentLocator.place(of: "parent_linkage", in: locator.bytes)?.count)
    #expect(foreign == good.values["parent_linkage"].map { 2 * $0.utf16.count })
  }

  /// A BAT that moves to where a sector bitmap was.
  @Test func longerBATDoesNotReadAsAnOldBitmap() throws {
    try TemporaryFolder.with { folder in
      let (_, child) = try Self.make(folder)
      let chain = try ImageOpener.open(child, OpenOptions(access: .readWrite))
      try chain.resize(to: 6 << 30)
      let block = [UInt8](repeating: 9, count: mebibyte)
      // Room before that of block 0, which the first block of the second chunk takes: so the bitmap is last.
      try chain.writeBytes(block, at: UInt64(mebibyte))
      try chain.writeBytes(block, at: 0)
      try chain.discard(at: UInt64(mebibyte), count: UInt64(mebibyte))
      try chain.flush()
      // Bit 2 of byte 800 of the bitmap: as entry 100 of the BAT, a reserved state.
      let place: UInt64 = 4 << 30 + (800 * 8 + 2) * 512
      try chain.writeBytes([UInt8](repeating: 8, count: 512), at: place)
      try chain.flush()
      #expect(try chain.readBytes(at: place, count: 1) == [8])
      try chain.resize(to: 4 << 20)
      try chain.resize(to: 200 << 30)
      #expect(try chain.readBytes(at: 0, count: mebibyte) == block)
      try chain.close()
    }
  }
}
