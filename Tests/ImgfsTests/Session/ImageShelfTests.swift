import FormatEngine
import Foundation
import TestSupport
import Testing

@testable import imgfs

@Suite struct ImageShelfTests {
  /// A shelf whose images are opened as the mount does it.
  private func shelf(
    _ paths: [String], isWritable: Bool = false, maximumIdleCount: Int = 64, format: String? = nil
  ) throws -> ImageShelf {
    let settings = ImageShelf.Settings(
      access: ImageSession.Access(isWritable: isWritable), idleSeconds: 0, maximumIdleCount: maximumIdleCount,
      format: format)
    return try ImageShelf(paths, settings) { (path) throws(EngineError) in
      try ImageOpener.open(path, OpenOptions(format: format, access: isWritable ? .readWrite : .readOnly))
    }
  }

  private func makeImages(_ count: Int, in folder: String) throws {
    let first = "\(folder)/0000.qcow2"
    try ReferenceTool.qemuImg("create", "-f", "qcow2", first, "1M")
    try ReferenceTool.io(["write -P 7 0 64k"], on: first, format: "qcow2")
    let bytes = try Files.read(first)
    for number in 1..<count {
      try Data(bytes).write(to: URL(fileURLWithPath: folder + String(format: "/%04d.qcow2", number)))
    }
  }

  private var descriptorCount: Int {
    (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count) ?? 0
  }

  @Test func showsTheImagesOfAFolderAndNothingElse() throws {
    try TemporaryFolder.with { folder in
      try makeImages(1, in: folder.path)
      _ = try folder.write([UInt8](repeating: 0, count: 512), to: "disk.raw")
      _ = try folder.write([UInt8](repeating: 0, count: 512), to: "notes.txt")
      _ = try folder.write([UInt8](repeating: 0, count: 512), to: "vm-flat.vmdk")
      _ = try folder.write([], to: "empty.img")
      _ = try folder.write([UInt8](repeating: 0, count: 512), to: ".hidden.raw")
      _ = try folder.makeFolder("folder.raw")
      try ReferenceTool.qemuImg(
        "create", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", folder.file("split.vmdk"), "3G")
      let system = FileSystem(try shelf([folder.path]))
      #expect(try system.names(in: NodeNumbers.root) == ["0000.qcow2", "disk.raw", "split.vmdk"])
      let disk = try #require(try system.find("0000.qcow2", "disk.raw"))
      let handle = try system.open(disk.id, forWriting: false).handle
      #expect(try system.bytes(handle, at: 65_535, count: 2) == [7, 0])
      system.close(handle)
      // With a format that the user gave, every file is an image.
      let all = FileSystem(try shelf([folder.path], format: "raw"))
      #expect(try all.names(in: NodeNumbers.root).contains("notes.txt"))
    }
  }

  @Test func keepsNamesApart() throws {
    try TemporaryFolder.with { folder in
      for name in ["a", "b"] { try makeImages(1, in: try folder.makeFolder(name)) }
      let paths = ["a", "b"].map { folder.file("\($0)/0000.qcow2") }
      let system = FileSystem(try shelf(paths))
      #expect(try system.names(in: NodeNumbers.root) == ["0000.qcow2", "0000.qcow2~2"])
    }
  }

  @Test func holdsFewFilesOpen() throws {
    try TemporaryFolder.with { folder in
      try makeImages(300, in: folder.path)
      let shelf = try shelf([folder.path], maximumIdleCount: 8)
      let system = FileSystem(shelf)
      let before = descriptorCount
      #expect(try system.names(in: NodeNumbers.root).count == 300)
      // Listing opens nothing.
      #expect(shelf.items().items.allSatisfy { !$0.session.isOpen })
      var most = 0
      for number in 0..<300 {
        let name = String(format: "%04d.qcow2", number)
        let disk = try #require(try system.find(name, "disk.raw"))
        let handle = try system.open(disk.id, forWriting: false).handle
        #expect(try system.bytes(handle, at: 0, count: 1) == [7])
        system.close(handle)
        most = max(most, shelf.items().items.filter(\.session.isOpen).count)
      }
      #expect(most <= 9)
      // Other tests may open files meanwhile.
      #expect(descriptorCount - before < 100)
      shelf.closeIdle()
      #expect(shelf.items().items.allSatisfy { !$0.session.isOpen })
    }
  }

  @Test func keepsWhatIsUsedOpen() throws {
    try TemporaryFolder.with { folder in
      try makeImages(1, in: folder.path)
      let shelf = try shelf([folder.path])
      let system = FileSystem(shelf)
      let disk = try #require(try system.find("0000.qcow2", "disk.raw"))
      let handle = try system.open(disk.id, forWriting: false).handle
      shelf.closeIdle()
      #expect(shelf.items().items[0].session.isOpen)
      #expect(try system.bytes(handle, at: 0, count: 1) == [7])
      system.close(handle)
      shelf.closeIdle()
      #expect(!shelf.items().items[0].session.isOpen)
    }
  }

  /// Waits until a look at the folder is due.
  private func afterALook(_ body: () throws -> Bool) rethrows -> Bool {
    for _ in 0..<40 {
      if try body() { return true }
      usleep(100_000)
    }
    return false
  }

  @Test func noticesWhatAppearsAndGoes() throws {
    try TemporaryFolder.with { folder in
      try makeImages(1, in: folder.path)
      let system = FileSystem(try shelf([folder.path]))
      let first = try #require(try system.find("0000.qcow2"))
      try Data(try Files.read(folder.file("0000.qcow2"))).write(
        to: URL(fileURLWithPath: folder.file("new.qcow2")))
      #expect(try afterALook { try system.names(in: NodeNumbers.root) == ["0000.qcow2", "new.qcow2"] })
      #expect(try system.find("0000.qcow2")?.id == first.id)
      try FileManager.default.removeItem(atPath: folder.file("0000.qcow2"))
      #expect(try afterALook { try system.names(in: NodeNumbers.root) == ["new.qcow2"] })
    }
  }

  @Test func takesAnotherFileForAnotherImage() throws {
    try TemporaryFolder.with { folder in
      try makeImages(2, in: folder.path)
      let shelf = try shelf([folder.file("0000.qcow2")])
      let system = FileSystem(shelf)
      let old = try #require(try system.find("0000.qcow2", "disk.raw"))
      shelf.closeIdle()
      try ReferenceTool.io(
        ["write -P 9 0 64k"], on: folder.file("0001.qcow2"), format: "qcow2")
      try FileManager.default.removeItem(atPath: folder.file("0000.qcow2"))
      try FileManager.default.moveItem(atPath: folder.file("0001.qcow2"), toPath: folder.file("0000.qcow2"))
      // Whoever knows the old disk never gets the new one's bytes.
      do throws(EngineError) {
        _ = try system.open(old.id, forWriting: false)
        Issue.record("the old disk opens")
      } catch { #expect(error.errno == ESTALE) }
      #expect(try afterALook { try system.find("0000.qcow2", "disk.raw")?.id != old.id })
      let new = try #require(try system.find("0000.qcow2", "disk.raw"))
      let handle = try system.open(new.id, forWriting: false).handle
      #expect(try system.bytes(handle, at: 0, count: 1) == [9])
    }
  }

  @Test func saysWhyAnImageDoesNotOpen() throws {
    try TemporaryFolder.with { folder in
      try makeImages(1, in: folder.path)
      let path = folder.file("0000.qcow2")
      var bytes = try Files.read(path)
      bytes[7] = 99
      try Data(bytes).write(to: URL(fileURLWithPath: path))
      let system = FileSystem(try shelf([folder.path]))
      #expect(try system.names(in: try #require(try system.find("0000.qcow2")).id) == ["error.txt"])
      let text = try #require(try system.find("0000.qcow2", "error.txt"))
      let handle = try system.open(text.id, forWriting: false).handle
      let words = String(decoding: try system.bytes(handle, at: 0, count: 1000), as: UTF8.self)
      #expect(words.contains("version") && UInt64(words.utf8.count) == text.byteCount)
      bytes[7] = 3
      try Data(bytes).write(to: URL(fileURLWithPath: path))
      #expect(try afterALook { try system.find("0000.qcow2", "disk.raw") != nil })
    }
  }

  @Test func keepsWhatWasWrittenWhenItCloses() throws {
    try TemporaryFolder.with { folder in
      try makeImages(1, in: folder.path)
      let shelf = try shelf([folder.path], isWritable: true)
      let system = FileSystem(shelf)
      let disk = try #require(try system.find("0000.qcow2", "disk.raw"))
      for round in 1...3 {
        let handle = try system.open(disk.id, forWriting: true).handle
        let bytes = [UInt8](repeating: UInt8(round), count: 512)
        let count = unsafe try bytes.withUnsafeBytes {
          unsafe try system.write($0, to: handle, at: UInt64(round) * 512, isSynchronous: false)
        }
        #expect(count == 512)
        system.close(handle)
        shelf.closeIdle()
        #expect(!shelf.items().items[0].session.isOpen)
        try ReferenceTool.io(
          ["read -P \(round) \(round * 512) 512"], on: folder.file("0000.qcow2"), format: "qcow2")
        usleep(1_100_000)
        #expect(try system.find("0000.qcow2", "disk.raw")?.id == disk.id)
      }
    }
  }
}
