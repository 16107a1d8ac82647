import Foundation
import Synchronization
import TestSupport
import Testing

@testable import FormatEngine
@testable import imgfs

/// Nothing that was written is lost and nothing waits while the images of a shelf, or their files, change.
@Suite struct ShelfChangeTests {
  /// A shelf that looks at the folders each time, and on which everything that is not used may be closed.
  private func shelf(
    _ path: String, isWritable: Bool = true, change: (inout ImageShelf.Settings) -> Void = { _ in },
    opening: ImageShelf.Opening? = nil
  ) throws -> ImageShelf {
    var settings = ImageShelf.Settings(
      access: ImageSession.Access(isWritable: isWritable), idleSeconds: 0, scanSeconds: 0)
    change(&settings)
    return try ImageShelf([path], settings) { (path) throws(EngineError) in
      if let opening { return try opening(path) }
      return try ImageOpener.open(path, OpenOptions(access: isWritable ? .readWrite : .readOnly))
    }
  }

  private func makeImage(_ name: String, _ pattern: Int, in folder: TemporaryFolder) throws {
    try ReferenceTool.qemuImg("create", "-f", "qcow2", folder.file(name), "1M")
    try ReferenceTool.io(["write -P \(pattern) 0 64k"], on: folder.file(name), format: "qcow2")
  }

  private func open(_ system: FileSystem, _ name: String, forWriting: Bool = true) throws -> UInt64 {
    try system.open(try #require(try system.find(name, "disk.raw")).id, forWriting: forWriting).handle
  }

  private func write(_ value: UInt8, _ system: FileSystem, _ handle: UInt64, at offset: UInt64) throws {
    let count = unsafe try [UInt8](repeating: value, count: 512).withUnsafeBytes {
      unsafe try system.write($0, to: handle, at: offset, isSynchronous: false)
    }
    #expect(count == 512)
  }

  private func expect(_ value: Int, in path: String, at offset: Int, format: String = "qcow2") throws {
    try ReferenceTool.io(["read -P \(value) \(offset) 512"], on: path, format: format, isReadOnly: true)
  }

  private func move(_ old: String, to new: String) throws {
    try FileManager.default.moveItem(atPath: old, toPath: new)
  }

  // MARK: Its own writes

  @Test func ownWritesAreNoOtherFile() throws {
    try TemporaryFolder.with { folder in
      try makeImage("a.qcow2", 7, in: folder)
      let shelf = try shelf(folder.path)
      let system = FileSystem(shelf)
      let item = try #require(shelf.items().items.first)
      let handle = try open(system, "a.qcow2")
      for round in 1...3 {
        try write(UInt8(round), system, handle, at: UInt64(round) << 17)
        try shelf.list.items[0].session.withChain { (chain) throws(EngineError) in try chain.flush() }
        #expect(shelf.items().items.map(\.number) == [item.number])
      }
      system.close(handle)
      shelf.closeIdle()
      #expect(shelf.items().items.map(\.number) == [item.number])
      for round in 1...3 { try expect(round, in: folder.file("a.qcow2"), at: round << 17) }
    }
  }

  @Test func anImageWithAnOverlayStaysTheSame() throws {
    try TemporaryFolder.with { folder in
      let images = try folder.makeInner("images")
      for name in ["a", "b", "c", "d"] { try makeImage("\(name).qcow2", 7, in: images) }
      let shelf = try shelf(images.path) { settings in
        (settings.hasOverlays, settings.maximumIdleCount) = (true, 1)
      } opening: { (path) throws(EngineError) in
        let options = OpenOptions(access: .readOnly)
        return try Overlay(
          over: try ImageOpener.open(path, options), options, at: .temporary(inFolder: folder.path)
        ).chain
      }
      let system = FileSystem(shelf)
      for (number, name) in ["a", "b", "c", "d"].enumerated() {
        let handle = try open(system, "\(name).qcow2")
        try write(UInt8(number + 20), system, handle, at: 512)
        system.close(handle)
        shelf.closeIdle()
      }
      // None of them was closed, for idleness or to make room.
      for (number, name) in ["a", "b", "c", "d"].enumerated() {
        let handle = try open(system, "\(name).qcow2", forWriting: false)
        #expect(try system.bytes(handle, at: 511, count: 2) == [7, UInt8(number + 20)])
        system.close(handle)
      }
      try shelf.close()
    }
  }

  @Test func aBundleStaysTheSame() throws {
    try TemporaryFolder.with { folder in
      let bundle = try folder.makeInner("images/d.hdd")
      try ReferenceTool.qemuImg("create", "-f", "parallels", bundle.file("d.hds"), "1M")
      let guid = "{5fbaabe3-6958-40ff-92a7-860e329aab41}"
      let descriptor = """
        <?xml version='1.0' encoding='UTF-8'?>
        <Parallels_disk_image Version="1.0">
        <Disk_Parameters><Disk_size>2048</Disk_size><Padding>0</Padding></Disk_Parameters>
        <StorageData><Storage><Start>0</Start><End>2048</End><Blocksize>2048</Blocksize>
        <Image><GUID>\(guid)</GUID><Type>Compressed</Type><File>d.hds</File></Image></Storage></StorageData>
        <Snapshots><Shot><GUID>\(guid)</GUID>
        <ParentGUID>{00000000-0000-0000-0000-000000000000}</ParentGUID></Shot></Snapshots></Parallels_disk_image>
        """
      _ = try bundle.write(Array(descriptor.utf8), to: "DiskDescriptor.xml")
      let shelf = try shelf(folder.file("images"))
      let system = FileSystem(shelf)
      let item = try #require(shelf.items().items.first)
      let handle = try open(system, "d.hdd")
      try write(3, system, handle, at: 0)
      #expect(shelf.items().items.map(\.number) == [item.number])
      system.close(handle)
      shelf.closeIdle()
      #expect(!item.session.isOpen)
      #expect(shelf.items().items.map(\.number) == [item.number])
      try expect(3, in: bundle.file("d.hds"), at: 0, format: "parallels")
    }
  }

  // MARK: What leaves the shelf

  @Test func aRenamedFileKeepsItsItem() throws {
    try TemporaryFolder.with { folder in
      try makeImage("a.qcow2", 7, in: folder)
      let shelf = try shelf(folder.path)
      let system = FileSystem(shelf)
      let item = try #require(shelf.items().items.first)
      let handle = try open(system, "a.qcow2")
      try write(1, system, handle, at: 1 << 17)
      try move(folder.file("a.qcow2"), to: folder.file("b.qcow2"))
      #expect(try system.names(in: NodeNumbers.root) == ["b.qcow2"])
      #expect(shelf.items().items.map(\.number) == [item.number])
      try write(2, system, handle, at: 2 << 17)
      system.close(handle)
      shelf.closeIdle()
      #expect(!item.session.isOpen)
      for value in 1...2 { try expect(value, in: folder.file("b.qcow2"), at: value << 17) }
      // It is opened by the new name, and keeps its item when it has another name while it is closed.
      try move(folder.file("b.qcow2"), to: folder.file("c.qcow2"))
      let again = try open(system, "c.qcow2")
      #expect(try system.bytes(again, at: 1 << 17, count: 1) == [1])
      #expect(shelf.items().items.map(\.number) == [item.number])
      system.close(again)
    }
  }

  @Test(arguments: [false, true]) func whatLeavesIsClosed(_ isAtTheEnd: Bool) throws {
    try TemporaryFolder.with { folder in
      let images = try folder.makeInner("images")
      try makeImage("a.qcow2", 7, in: images)
      let shelf = try shelf(images.path)
      let system = FileSystem(shelf)
      let item = try #require(shelf.items().items.first)
      let old = try #require(try system.find("a.qcow2", "disk.raw"))
      let handle = try open(system, "a.qcow2")
      try write(1, system, handle, at: 1 << 17)
      try move(images.file("a.qcow2"), to: folder.file("gone.qcow2"))
      #expect(try system.names(in: NodeNumbers.root) == [])
      shelf.closeIdle()
      // Somebody has it open still.
      try write(2, system, handle, at: 2 << 17)
      if !isAtTheEnd { system.close(handle) }
      if isAtTheEnd { try shelf.close() } else { shelf.closeIdle() }
      #expect(!item.session.isOpen && item.session.hasEnded)
      for value in 1...2 { try expect(value, in: folder.file("gone.qcow2"), at: value << 17) }
      if isAtTheEnd { system.close(handle) }
      // Nobody opens what was closed for good.
      do throws(EngineError) {
        _ = try system.open(old.id, forWriting: false)
        Issue.record("what is gone opens")
      } catch { #expect(error.errno == ESTALE) }
    }
  }

  @Test func whatComesBackIsTheSame() throws {
    try TemporaryFolder.with { folder in
      let images = try folder.makeInner("images")
      try makeImage("a.qcow2", 7, in: images)
      let shelf = try shelf(images.path)
      let system = FileSystem(shelf)
      let item = try #require(shelf.items().items.first)
      let handle = try open(system, "a.qcow2")
      try move(images.file("a.qcow2"), to: folder.file("away"))
      #expect(shelf.items().items.isEmpty)
      try move(folder.file("away"), to: images.file("b.qcow2"))
      // Its lock is held: another item would not open.
      #expect(shelf.items().items.map(\.number) == [item.number])
      try write(1, system, handle, at: 0)
      // Under another name it is another file, and the same bytes are written through one file at a time.
      let disk = try #require(try system.find("b.qcow2", "disk.raw"))
      #expect(throws: EngineError.self) { _ = try system.open(disk.id, forWriting: true) }
      let second = try system.open(disk.id, forWriting: false).handle
      #expect(try system.bytes(second, at: 0, count: 1) == [1])
      system.close(handle)
      system.close(second)
      shelf.closeIdle()
      try expect(1, in: images.file("b.qcow2"), at: 0)
    }
  }

  @Test func aNewFileIsNeverTakenForTheOld() throws {
    try TemporaryFolder.with { folder in
      let images = try folder.makeInner("images")
      try makeImage("new", 7, in: folder)
      let bytes = try Files.read(folder.file("new"))
      let path = images.file("a.qcow2")
      try Files.write(bytes, to: path)
      let shelf = try shelf(images.path, isWritable: false)
      let system = FileSystem(shelf)
      var ids: Set<UInt64> = []
      var numbers = Set(shelf.items().items.map(\.number))
      for round in 1...50 {
        #expect(ids.insert(try #require(try system.find("a.qcow2")).id).inserted)
        // Twice: the first one's memory is free then for the third.
        for _ in 0..<2 {
          try FileManager.default.removeItem(atPath: path)
          try Files.write(bytes + [UInt8](repeating: 0, count: 512 * round), to: path)
          usleep(5_000)
          #expect(numbers.insert(try #require(shelf.items().items.first).number).inserted)
          shelf.closeIdle()
        }
      }
    }
  }

  // MARK: Failures

  @Test func whatCannotBeFlushedStaysOpen() throws {
    try TemporaryFolder.with { folder in
      let images = try folder.makeInner("images")
      let path = images.file("a.raw")
      try Files.write([UInt8](repeating: 7, count: 1 << 20), to: path)
      let openings = Atomic<Int>(0)
      let failing: ImageShelf.Opening = { (path) throws(EngineError) in
        openings.add(1, ordering: .relaxed)
        let failures = (0..<3).map {
          "file.inject-error.\($0).event=none,file.inject-error.\($0).iotype=flush,file.inject-error.\($0).once=on"
        }
        let image = ImageSpecification(
          options: "driver=raw,file.driver=blkdebug,file.image.filename=\(path),"
            + failures.joined(separator: ","))
        return try ImageOpener.open(image, OpenOptions(access: .readWrite))
      }
      let shelf = try shelf(images.path, opening: failing)
      let system = FileSystem(shelf)
      let handle = try open(system, "a.raw")
      try write(1, system, handle, at: 512)
      system.close(handle)
      for _ in 0..<3 {
        shelf.closeIdle()
        #expect(shelf.list.items[0].session.isOpen)
      }
      shelf.closeIdle()
      #expect(!shelf.list.items[0].session.isOpen)
      try expect(1, in: path, at: 512, format: "raw")
      #expect(openings.load(ordering: .relaxed) == 1)
    }
  }

  // MARK: Slow images

  @Test func aSlowImageKeepsNobodyWaiting() throws {
    try TemporaryFolder.with { folder in
      for name in ["fast", "slow"] { try makeImage("\(name).qcow2", 7, in: folder) }
      let (opening, goOn) = (DispatchSemaphore(value: 0), DispatchSemaphore(value: 0))
      let slowly: ImageShelf.Opening = { (path) throws(EngineError) in
        if path.hasSuffix("slow.qcow2") {
          opening.signal()
          goOn.wait()
        }
        return try ImageOpener.open(path, OpenOptions(access: .readWrite))
      }
      let shelf = try shelf(folder.path, opening: slowly)
      let system = FileSystem(shelf)
      let slow = Thread { _ = try? system.find("slow.qcow2", "disk.raw") }
      try Deadline.within(seconds: 30, "a look beside a slow image") {
        #expect(try system.names(in: NodeNumbers.root).count == 2)
        slow.start()
        opening.wait()
        let handle = try open(system, "fast.qcow2")
        try write(1, system, handle, at: 0)
        system.close(handle)
        #expect(system.capacity == 1 << 20)
        shelf.closeIdle()
        #expect(system.capacity == 0)
        _ = try makeImage("new.qcow2", 7, in: folder)
        #expect(try system.names(in: NodeNumbers.root).count == 3)
        goOn.signal()
        #expect(MountedImage.waits { slow.isFinished })
        try shelf.close()
      }
    }
  }

  @Test func aSlowLookKeepsNobodyWaiting() throws {
    let (looking, goOn) = (DispatchSemaphore(value: 0), DispatchSemaphore(value: 0))
    let isSlow = Atomic<Bool>(false)
    let root = Folder {
      guard isSlow.exchange(false, ordering: .relaxed) else { return }
      looking.signal()
      goOn.wait()
    } look: { () throws(EngineError) in
      (0, { _ in [] })
    }
    #expect(try root.listing().nodes.isEmpty)
    isSlow.store(true, ordering: .relaxed)
    let slow = Thread { _ = try? root.listing() }
    let found = try Deadline.within(seconds: 30, "a look beside a slow one") {
      slow.start()
      looking.wait()
      let found = try root.listing().nodes
      goOn.signal()
      #expect(MountedImage.waits { slow.isFinished })
      return found
    }
    #expect(found.isEmpty)
  }

  // MARK: The end

  @Test func aSessionThatIsClosedIsNotOpenedAgain() throws {
    let count = Atomic<Int>(0)
    let session = ImageSession(name: "a") { () throws(EngineError) in
      count.add(1, ordering: .relaxed)
      return SnapshotfulLayer([]).chain()
    }
    let size = try session.withChain { (chain) throws(EngineError) in chain.virtualSize }
    #expect(size > 0)
    try session.close()
    #expect(throws: EngineError.self) {
      _ = try session.withChain { (chain) throws(EngineError) in chain.virtualSize }
    }
    #expect(throws: EngineError.self) { _ = try session.use() }
    #expect(!session.isOpen && count.load(ordering: .relaxed) == 1)
  }
}
