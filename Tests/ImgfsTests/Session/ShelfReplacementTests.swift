import Foundation
import Synchronization
import TestSupport
import Testing

@testable import FormatEngine
@testable import imgfs

/// What others change about the files of a shelf's images is seen, whichever file it is and whenever they do it.
@Suite struct ShelfReplacementTests {
  /// A shelf that does not look at its folder again by itself.
  private func system(_ path: String, isWritable: Bool = false) throws -> (FileSystem, ImageShelf) {
    let settings = ImageShelf.Settings(
      access: ImageSession.Access(isWritable: isWritable), idleSeconds: 0, scanSeconds: 3600)
    let shelf = try ImageShelf([path], settings) { (path) throws(EngineError) in
      try ImageOpener.open(
        path,
        OpenOptions(format: path.hasSuffix("raw") ? "raw" : nil, access: isWritable ? .readWrite : .readOnly))
    }
    return (FileSystem(shelf), shelf)
  }

  /// The number of an image's disk, and its byte at `offset`.
  private func look(_ system: FileSystem, _ name: String, at offset: UInt64 = 0) throws -> (UInt64, UInt8?) {
    let disk = try #require(try system.find(name, "disk.raw"))
    let handle = try system.open(disk.id, forWriting: false).handle
    defer { system.close(handle) }
    return (disk.id, try system.bytes(handle, at: offset, count: 1).first)
  }

  private func overwrite(_ path: String, with value: UInt8, at offset: UInt64 = 0) throws {
    let file = try FileHandle(forUpdating: URL(fileURLWithPath: path))
    try file.seek(toOffset: offset)
    try file.write(contentsOf: [UInt8](repeating: value, count: 65536))
    try file.close()
  }

  private func expectReplaced(_ system: FileSystem, _ id: UInt64) {
    do throws(EngineError) {
      _ = try system.open(id, forWriting: false)
      Issue.record("the old disk opens")
    } catch { #expect(error.errno == ESTALE) }
  }

  @Test(arguments: [false, true]) func aFileThatIsChangedWhileItIsOpen(_ isWritable: Bool) throws {
    try TemporaryFolder.with { folder in
      let path = try folder.write([UInt8](repeating: 1, count: 1 << 20), to: "x.raw")
      let (system, shelf) = try system(folder.path, isWritable: isWritable)
      let disk = try #require(try system.find("x.raw", "disk.raw"))
      let handle = try system.open(disk.id, forWriting: false).handle
      #expect(try system.bytes(handle, at: 0, count: 1) == [1])
      // As cp(1) does it: the same file with other bytes, and longer.
      try overwrite(path, with: 2)
      try overwrite(path, with: 3, at: 1 << 20)
      system.close(handle)
      shelf.closeIdle()
      #expect(!shelf.list.items[0].session.isOpen)
      let new = try #require(try system.find("x.raw", "disk.raw"))
      #expect(new.id != disk.id && new.byteCount == 1 << 20 + 65536)
      #expect(try look(system, "x.raw") == (new.id, 2))
      #expect(try look(system, "x.raw", at: 1 << 20).1 == 3)
      expectReplaced(system, disk.id)
    }
  }

  /// None of what an image does to its file when it is opened, flushed and closed is another's change.
  @Test(arguments: ["raw", "qcow2", "qed", "vdi", "vmdk", "vhdx", "vpc", "parallels"])
  func whatIsOnlyReadStaysTheSame(_ format: String) throws {
    try TemporaryFolder.with { folder in
      let name = "x.\(format == "raw" ? "raw" : "image")"
      try ReferenceTool.create(folder.file(name), format: format, size: 4 << 20)
      try ReferenceTool.io(["write -P 7 0 64k"], on: folder.file(name), format: format)
      let (system, shelf) = try system(folder.path, isWritable: true)
      let first = try look(system, name)
      for _ in 0..<2 {
        usleep(10_000)
        shelf.closeIdle()
        #expect(!shelf.list.items[0].session.isOpen && !shelf.list.items[0].session.hasEnded)
        #expect(try look(system, name) == first)
      }
      #expect(first.1 == 7)
    }
  }

  static let named: [(format: String, options: [String], size: Int, file: String, offset: UInt64)] = [
    ("vmdk", ["subformat=monolithicFlat"], 1 << 20, "x-flat.vmdk", 0),
    ("vmdk", ["subformat=twoGbMaxExtentFlat"], 3 << 30, "x-f002.vmdk", 2 << 30),
    ("qcow2", ["data_file=DATA", "data_file_raw=on"], 1 << 20, "x.data", 0),
  ]

  /// Files that an image names itself: the image's own stays as it is.
  @Test(arguments: named.indices) func aNamedFileThatIsChanged(_ index: Int) throws {
    let (format, options, size, file, offset) = Self.named[index]
    try TemporaryFolder.with { folder in
      let images = try folder.makeInner("images")
      let name = "x.\(format)"
      let words = options.map { $0.replacingOccurrences(of: "DATA", with: folder.file("images/x.data")) }
      try ReferenceTool.create(images.file(name), format: format, size: size, options: words)
      let path = images.file(name)
      try ReferenceTool.io(["write -P 1 \(offset) 64k"], on: path, format: format)
      let (system, shelf) = try system(path)
      let first = try look(system, name, at: offset)
      #expect(first.1 == 1)
      shelf.closeIdle()
      try overwrite(images.file(file), with: 2)
      expectReplaced(system, first.0)
      let second = try look(system, name, at: offset)
      #expect(second.0 != first.0 && second.1 == 2)
    }
  }

  @Test(arguments: [false, true]) func aFileBelowThatIsChangedWhileItIsClosed(_ isWritable: Bool) throws {
    try TemporaryFolder.with { folder in
      try ReferenceTool.create(folder.file("base.qcow2"), format: "qcow2", size: 1 << 20)
      try ReferenceTool.io(["write -P 1 0 64k"], on: folder.file("base.qcow2"), format: "qcow2")
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", folder.file("top.qcow2"))
      let (system, shelf) = try system(folder.path, isWritable: isWritable)
      let first = try look(system, "top.qcow2")
      #expect(first.1 == 1)
      shelf.closeIdle()
      if isWritable {
        // Through the same mount.
        let base = try #require(try system.find("base.qcow2", "disk.raw"))
        let handle = try system.open(base.id, forWriting: true).handle
        let bytes = [UInt8](repeating: 2, count: 512)
        let count = unsafe try bytes.withUnsafeBytes {
          unsafe try system.write($0, to: handle, at: 0, isSynchronous: false)
        }
        #expect(count == 512)
        system.close(handle)
        shelf.closeIdle()
        #expect(!shelf.list.items.contains { $0.session.hasEnded })
      } else {
        try ReferenceTool.io(["write -P 2 0 64k"], on: folder.file("base.qcow2"), format: "qcow2")
      }
      expectReplaced(system, first.0)
      // Whoever looks at the path again finds the new one, without waiting for the next look at the folder.
      let second = try look(system, "top.qcow2")
      #expect(second.0 != first.0 && second.1 == 2)
      shelf.closeIdle()
      #expect(try look(system, "top.qcow2") == second)
    }
  }

  /// A folder into which nobody has looked yet is no folder of an image that does not open.
  @Test func aFolderOfWhatWasReplacedSaysSo() throws {
    try TemporaryFolder.with { folder in
      _ = try folder.write([UInt8](repeating: 1, count: 1 << 20), to: "base.raw")
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", folder.file("top.qcow2"))
      let (system, shelf) = try system(folder.file("top.qcow2"))
      let image = try #require(try system.find("top.qcow2"))
      #expect(try system.extendedAttribute("user.imgfs.format", of: image.id) == "qcow2")
      shelf.closeIdle()
      try overwrite(folder.file("base.raw"), with: 2)
      do throws(EngineError) {
        _ = try system.names(in: image.id)
        Issue.record("the old folder opens")
      } catch { #expect(error.errno == ESTALE) }
      #expect(try system.find("top.qcow2", "disk.raw") != nil)
    }
  }

  // MARK: Failures

  /// What was not on disk when an image was closed is lost, and the end of the mount says so.
  @Test(arguments: [false, true]) func whatWasNotClosedWellFailsAtTheEnd(_ leaves: Bool) throws {
    try TemporaryFolder.with { folder in
      let images = try folder.makeInner("images")
      _ = try images.write([UInt8](repeating: 7, count: 1 << 20), to: "a.raw")
      let settings = ImageShelf.Settings(
        access: ImageSession.Access(isWritable: true), idleSeconds: 0, scanSeconds: 0)
      let shelf = try ImageShelf([images.path], settings) { (path) throws(EngineError) in
        // The second flush fails, which is that of the closing.
        let rules =
          "file.set-state.0.event=flush_to_disk,file.set-state.0.state=1,file.set-state.0.new_state=2,"
          + "file.set-state.1.event=flush_to_disk,file.set-state.1.state=2,file.set-state.1.new_state=3,"
          + "file.inject-error.0.event=none,file.inject-error.0.iotype=flush,file.inject-error.0.state=3"
        let image = ImageSpecification(
          options: "driver=raw,file.driver=blkdebug,file.image.filename=\(path),\(rules)")
        return try ImageOpener.open(image, OpenOptions(access: .readWrite))
      }
      let system = FileSystem(shelf)
      let disk = try #require(try system.find("a.raw", "disk.raw"))
      let handle = try system.open(disk.id, forWriting: true).handle
      let bytes = [UInt8](repeating: 1, count: 512)
      _ = unsafe try bytes.withUnsafeBytes {
        unsafe try system.write($0, to: handle, at: 0, isSynchronous: false)
      }
      system.close(handle)
      if leaves {
        try FileManager.default.removeItem(atPath: images.file("a.raw"))
        #expect(shelf.items().items.isEmpty)
      }
      let item = shelf.list.items.first
      shelf.closeIdle()
      #expect(item?.session.isOpen != true)
      shelf.closeIdle()
      // Once while somebody can still do something about it, who then may go on.
      do throws(EngineError) {
        try shelf.flush()
        Issue.record("the flush tells of nothing")
      } catch {
        #expect(error.message == "Could not write '\(images.file("a.raw"))': Input/output error")
      }
      try shelf.flush()
      do throws(EngineError) {
        try shelf.close()
        Issue.record("the end tells of nothing")
      } catch {
        #expect(error.message == "Could not close '\(images.file("a.raw"))': Input/output error")
      }
    }
  }

  @Test func anImageThatDoesNotOpenIsTriedOnceASecond() throws {
    try TemporaryFolder.with { folder in
      let path = try folder.write([UInt8](repeating: 7, count: 512), to: "a.raw")
      let count = Atomic<Int>(0)
      let shelf = try ImageShelf([path], ImageShelf.Settings()) { (_) throws(EngineError) in
        count.add(1, ordering: .relaxed)
        throw .corrupt("It is broken")
      }
      let system = FileSystem(shelf)
      let image = try #require(try system.find("a.raw"))
      for attempt in 1...2 {
        let start = HostClock.steadySeconds
        for _ in 0..<5 { #expect(try system.names(in: image.id) == ["error.txt"]) }
        #expect(count.load(ordering: .relaxed) == attempt || HostClock.steadySeconds - start > 0.9)
        usleep(1_050_000)
      }
    }
  }

  // MARK: Extended attributes

  @Test func namesOfAttributesOpenNothing() throws {
    try TemporaryFolder.with { folder in
      try ReferenceTool.create(folder.file("a.qcow2"), format: "qcow2", size: 1 << 20)
      var bytes = try Files.read(folder.file("a.qcow2"))
      bytes[7] = 99
      _ = try folder.write(bytes, to: "bad.qcow2")
      let (system, shelf) = try system(folder.path)
      let names = ["allocated_size", "depth", "encrypted", "format", "layers", "virtual_size"].map {
        "user.imgfs." + $0
      }
      let good = try #require(try system.find("a.qcow2"))
      #expect(try system.extendedAttributeNames(of: good.id).sorted() == names)
      #expect(try system.extendedAttribute("user.imgfs.depth", of: good.id) == "0")
      #expect(try system.extendedAttribute("user.imgfs.nothing", of: good.id) == nil)
      #expect(!shelf.list.items.contains { $0.session.isOpen })
      for name in names { #expect(try system.extendedAttribute(name, of: good.id) != nil) }
      // Of what does not open there is what is known without it.
      let bad = try #require(try system.find("bad.qcow2"))
      #expect(try system.names(in: bad.id) == ["error.txt"])
      #expect(try system.extendedAttributeNames(of: bad.id) == ["user.imgfs.depth"])
      #expect(try system.extendedAttribute("user.imgfs.depth", of: bad.id) == "0")
    }
  }
}
