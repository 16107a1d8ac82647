import FormatEngine
import Glibc
import TestSupport
import Testing

@testable import imgfs

extension FileSystem {
  /// Names in a folder, without "." and "..".
  func names(in folder: UInt64) throws(EngineError) -> [String] {
    var names: [String] = []
    let handle = try openFolder(folder)
    defer { close(handle) }
    // Position 0 is where a folder is read anew.
    try entries(of: folder, handle, from: 0, remembering: false) { _, _, _ in false }
    try entries(of: folder, handle, from: 2, remembering: false) { name, _, _ in
      names.append(String(decoding: name, as: UTF8.self))
      return true
    }
    return names
  }

  /// Follows names from the root; nil where one is not there.
  func find(_ path: String...) throws(EngineError) -> Attributes? {
    var found = try attributes(of: NodeNumbers.root)
    for name in path {
      guard let next = try lookUp(Array(name.utf8), in: found.id).found else { return nil }
      found = next
    }
    return found
  }

  /// Reads from an open file, in one request.
  func bytes(_ handle: UInt64, at offset: UInt64, count: Int) throws(EngineError) -> [UInt8] {
    let file = try file(handle)
    let count = file.readable(at: offset, count: count)
    guard count > 0 else { return [] }
    switch file {
    case .folder: return []
    case .text(let text): return Array(text[Int(offset)..<Int(offset) + count])
    case .disk(let disk):
      let buffer = AlignedBuffer(byteCount: count)
      try disk.reading(at: offset, count: count) { (chain) throws(EngineError) in
        let source = try disk.source(at: offset, count: count, in: chain)
        unsafe try disk.read(source, at: offset, in: chain, into: buffer.prefix(count))
      }
      return unsafe Array(buffer.prefix(count))
    }
  }
}

@Suite struct FileSystemTests {
  private func errorNumber(_ body: () throws(EngineError) -> Void) -> CInt {
    do throws(EngineError) { try body() } catch { return error.errno }
    return 0
  }

  /// The kernel forgets what it was told of; an error tells it of nothing.
  @Test func lookUpThatFailsIsNotRemembered() throws {
    let session = ImageSession(
      SnapshotfulLayer(["one"]).chain(), access: ImageSession.Access(isWritable: true))
    let system = FileSystem(session)
    let name = Array("disk.raw".utf8)
    let id = try #require(try system.lookUp(name, in: 1).found?.id)
    system.forget(id, count: 1)
    try session.close()
    #expect(errorNumber { () throws(EngineError) in _ = try system.lookUp(name, in: 1) } != 0)
    #expect(errorNumber { () throws(EngineError) in _ = try system.node(id) } == ESTALE)
  }

  @Test func showsTheTree() throws {
    let system = FileSystem(ImageSession(SnapshotfulLayer(["one", "two"]).chain()))
    #expect(Set(try system.names(in: 1)).isSuperset(of: ["disk.raw", "snapshots", "layers"]))
    let snapshots = try #require(try system.find("snapshots"))
    #expect(try system.names(in: snapshots.id) == ["one", "two"])
    let layers = try #require(try system.find("layers"))
    #expect(try system.names(in: layers.id) == ["0-disk.img"])
    let inner = try #require(try system.find("layers", "0-disk.img", "snapshots"))
    #expect(try system.names(in: inner.id) == ["one", "two"])
  }

  @Test func readsTheDiskAndEachSnapshot() throws {
    let system = FileSystem(ImageSession(SnapshotfulLayer(["zero", "one", "two"]).chain()))
    for (path, value, size) in [("zero", 0, 4096), ("one", 1, 4608), ("two", 2, 5120)] {
      let disk = try #require(try system.find("snapshots", path, "disk.raw"))
      let handle = try system.open(disk.id, forWriting: false).handle
      #expect(
        try system.bytes(handle, at: 0, count: 100_000) == [UInt8](repeating: UInt8(value), count: size))
      #expect(try system.attributes(of: disk.id).byteCount == UInt64(size))
      system.close(handle)
    }
    let disk = try #require(try system.find("disk.raw"))
    let handle = try system.open(disk.id, forWriting: false).handle
    #expect(try system.bytes(handle, at: 8000, count: 4096) == [UInt8](repeating: 255, count: 192))
    #expect(try system.bytes(handle, at: 8192, count: 1) == [])
    #expect(try system.bytes(handle, at: .max, count: 1) == [])
  }

  @Test func givesSnapshotsTheirDates() throws {
    let system = FileSystem(ImageSession(SnapshotfulLayer(["zero", "one"]).chain()))
    let folder = try #require(try system.find("snapshots", "one"))
    #expect(folder.time == FileTime(seconds: 1001, nanoseconds: 7))
    #expect(try system.find("snapshots", "one", "disk.raw")?.time == folder.time)
  }

  /// Before the Epoch, long after it, and parts of a second that are many seconds.
  @Test func takesAnyDateOfASnapshot() throws {
    let seconds: [Int64] = [.min, -1, 0, 1 << 31, (1 << 32) - 1, .max]
    let nanoseconds: [UInt32] = [0, 999_999_999, 1_000_000_000, .max]
    let dates = seconds.flatMap { second in
      nanoseconds.map { SnapshotDate(seconds: second, nanoseconds: $0) }
    }
    let names = dates.indices.map { "s\($0)" }
    let system = FileSystem(ImageSession(SnapshotfulLayer(names, dates: dates).chain()))
    for (date, name) in zip(dates, names) {
      let folder = try #require(try system.find("snapshots", name))
      let wanted = FileTime(seconds: date.seconds, nanoseconds: Int64(min(date.nanoseconds, 999_999_999)))
      #expect(folder.time == wanted)
      #expect(try system.attributes(of: folder.id).time == wanted)
      let text = try #require(try system.find("snapshots", name, "info.json"))
      let handle = try system.open(text.id, forWriting: false).handle
      let said = String(decoding: try system.bytes(handle, at: 0, count: 1 << 20), as: UTF8.self)
      #expect(said.contains("\"date-sec\": \(date.seconds),"), "\(said)")
    }
  }

  /// Thousands of snapshots, each with partitions perhaps: a listing opens none of them and reads no sector.
  @Test(arguments: [false, true]) func listingOpensNoSnapshot(_ remembering: Bool) throws {
    let layer = SnapshotfulLayer([String](repeating: "s", count: 1000))
    let system = FileSystem(ImageSession(layer.chain()))
    let snapshots = try #require(try system.find("snapshots")).id
    func list(_ folder: UInt64) throws -> [(name: String, id: UInt64)] {
      var found: [(name: String, id: UInt64)] = []
      let handle = try system.openFolder(folder)
      defer { system.close(handle) }
      try system.entries(of: folder, handle, from: 0, remembering: remembering) { name, attributes, _ in
        found.append((String(decoding: name, as: UTF8.self), attributes.id))
        return true
      }
      return Array(found.dropFirst(2))
    }
    for (name, id) in try list(snapshots) {
      let folder = try #require(try system.find("snapshots", name))
      #expect(folder.id == id)
      _ = try system.attributes(of: id)
      #expect(try list(id).map(\.name) == ["disk.raw", "info.json", "partitions"])
      #expect(try system.find("snapshots", name, "disk.raw")?.kind == .file)
      #expect(try system.find("snapshots", name, "partitions")?.kind == .folder)
    }
    #expect(layer.uses.openingCount == 0)
    #expect(layer.uses.extentCount == 0)
    // Who looks into one opens that one.
    let partitions = try #require(try system.find("snapshots", "s~7", "partitions"))
    _ = try list(partitions.id)
    let disk = try #require(try system.find("snapshots", "s~7", "disk.raw"))
    let handle = try system.open(disk.id, forWriting: false).handle
    #expect(try system.bytes(handle, at: 0, count: 1) == [6])
    #expect((1...2).contains(layer.uses.openingCount))
    #expect(layer.uses.extentCount > 0)
  }

  /// Positions that a listing never gave, and handles of something else.
  @Test func takesAnyPositionInAFolder() throws {
    let system = FileSystem(ImageSession(SnapshotfulLayer(["one", "two", "three"]).chain()))
    let folder = try #require(try system.find("snapshots")).id
    let handle = try system.openFolder(folder)
    func names(_ handle: UInt64, from position: UInt64) throws(EngineError) -> [String] {
      var found: [String] = []
      try system.entries(of: folder, handle, from: position, remembering: false) { name, _, _ in
        found.append(String(decoding: name, as: UTF8.self))
        return true
      }
      return found
    }
    let all = [".", "..", "one", "two", "three"]
    #expect(try names(handle, from: 0) == all)
    for position in 1...5 { #expect(try names(handle, from: UInt64(position)) == Array(all[position...])) }
    for position in [6, 1 << 40, UInt64(Int64.max), 1 << 63, .max - 1, .max] as [UInt64] {
      #expect(try names(handle, from: position) == [])
    }
    let disk = try #require(try system.find("disk.raw"))
    let file = try system.open(disk.id, forWriting: false).handle
    system.close(handle)
    for wrong in [file, handle, 0, 12_345, .max] {
      #expect(errorNumber { () throws(EngineError) in _ = try names(wrong, from: 1) } == EBADF)
    }
  }

  @Test func namesAreNoLongerThanTheSystemSays() throws {
    let system = FileSystem(ImageSession(SnapshotfulLayer([]).chain()))
    for count in [256, 1024, 1 << 20] {
      let name = [UInt8](repeating: 65, count: count)
      #expect(errorNumber { () throws(EngineError) in _ = try system.lookUp(name, in: 1) } == ENAMETOOLONG)
    }
    for name in [[UInt8](repeating: 65, count: 255), [0xff, 0xfe], [0], []] {
      #expect(try system.lookUp(name, in: 1).found == nil)
    }
  }

  @Test func makesHostileSnapshotNamesReachable() throws {
    let names = [
      "../../etc", "..", "", "a\0b", "\n", "same", "same", String(repeating: "ä", count: 32_768), "\u{202E}",
    ]
    let system = FileSystem(ImageSession(SnapshotfulLayer(names).chain()))
    let snapshots = try #require(try system.find("snapshots"))
    let listed = try system.names(in: snapshots.id)
    #expect(listed.count == names.count && Set(listed).count == names.count)
    for (index, name) in listed.enumerated() {
      let disk = try #require(try system.find("snapshots", name, "disk.raw"))
      let handle = try system.open(disk.id, forWriting: false).handle
      #expect(try system.bytes(handle, at: 0, count: 1) == [UInt8(index)])
    }
  }

  @Test func saysWhatIsNotThere() throws {
    let system = FileSystem(ImageSession(SnapshotfulLayer([]).chain()))
    #expect(try system.find("nothing") == nil)
    #expect(try system.find("snapshots", "nothing") == nil)
    let disk = try #require(try system.find("disk.raw"))
    #expect(errorNumber { () throws(EngineError) in _ = try system.lookUp([65], in: disk.id) } == ENOTDIR)
    #expect(errorNumber { () throws(EngineError) in _ = try system.attributes(of: 12_345) } == ESTALE)
    #expect(errorNumber { () throws(EngineError) in _ = try system.file(3) } == EBADF)
  }

  @Test func refusesWritingAndOpeningFolders() throws {
    let system = FileSystem(ImageSession(SnapshotfulLayer([]).chain()))
    let disk = try #require(try system.find("disk.raw"))
    #expect(errorNumber { () throws(EngineError) in _ = try system.open(disk.id, forWriting: true) } == EROFS)
    #expect(errorNumber { () throws(EngineError) in _ = try system.open(1, forWriting: false) } == EISDIR)
  }

  @Test func forgetsWhatItWasToldToForget() throws {
    let system = FileSystem(ImageSession(SnapshotfulLayer([]).chain()))
    let disk = try #require(try system.find("disk.raw"))
    _ = try system.find("disk.raw")
    system.forget(disk.id, count: 1)
    #expect(try system.attributes(of: disk.id).id == disk.id)
    let handle = try system.open(disk.id, forWriting: false).handle
    system.forget(disk.id, count: 1)
    #expect(errorNumber { () throws(EngineError) in _ = try system.attributes(of: disk.id) } == ESTALE)
    // What is open stays readable, and the number is the same when it is looked up again.
    #expect(try system.bytes(handle, at: 0, count: 1) == [255])
    #expect(try system.find("disk.raw")?.id == disk.id)
  }

  @Test func staysQuickWithThousandsOfSnapshots() throws {
    try Deadline.within(seconds: 60, "65,536 snapshots") {
      let system = FileSystem(ImageSession(SnapshotfulLayer([String](repeating: "s", count: 65_536)).chain()))
      let folder = try #require(try system.find("snapshots"))
      var count = 0
      let handle = try system.openFolder(folder.id)
      try system.entries(of: folder.id, handle, from: 0, remembering: true) { _, _, _ in
        count += 1
        return true
      }
      #expect(count == 65_538)
      let last = try #require(try system.find("snapshots", "s~65536", "disk.raw"))
      #expect(try system.attributes(of: last.id).byteCount == 4096 + 512 * 7)
    }
  }

  @Test func listsAFolderInPieces() throws {
    let names = (0..<500).map { "snapshot \($0)" }
    let system = FileSystem(ImageSession(SnapshotfulLayer(names).chain()))
    let folder = try #require(try system.find("snapshots"))
    var found: [String] = []
    var position: UInt64 = 0
    let handle = try system.openFolder(folder.id)
    while true {
      var taken = 0
      try system.entries(of: folder.id, handle, from: position, remembering: false) {
        name, attributes, next in
        guard taken < 7 else { return false }
        taken += 1
        position = next
        found.append(String(decoding: name, as: UTF8.self))
        if found.count == 1 { #expect(attributes.id == folder.id) }
        if found.count == 2 { #expect(attributes.id == NodeNumbers.root) }
        return true
      }
      if taken == 0 { break }
    }
    #expect(found == [".", ".."] + names)
  }

  @Test func countsListedEntriesAsLookupsWhereAsked() throws {
    let system = FileSystem(ImageSession(SnapshotfulLayer(["one"]).chain()))
    var ids: [UInt64] = []
    let folder = try system.openFolder(1)
    try system.entries(of: 1, folder, from: 0, remembering: true) { name, attributes, _ in
      if name.first != UInt8(ascii: ".") { ids.append(attributes.id) }
      return true
    }
    for id in ids {
      #expect(try system.attributes(of: id).id == id)
      system.forget(id, count: 1)
      #expect(errorNumber { () throws(EngineError) in _ = try system.attributes(of: id) } == ESTALE)
    }
  }

  @Test func staysUsableWhereTheSnapshotListIsDamaged() throws {
    let system = FileSystem(ImageSession(SnapshotfulLayer([], failure: .corrupt("broken")).chain()))
    let folder = try #require(try system.find("snapshots"))
    #expect(errorNumber { () throws(EngineError) in _ = try system.names(in: folder.id) } == EIO)
    // Tables that cannot be read: the disk has its size and opens, and reading says what is wrong.
    let disk = try #require(try system.find("disk.raw"))
    #expect(try system.attributes(of: disk.id).allocatedByteCount == 8192)
    let handle = try system.open(disk.id, forWriting: false).handle
    #expect(errorNumber { () throws(EngineError) in _ = try system.bytes(handle, at: 0, count: 1) } == EIO)
    #expect(try system.seek(handle, from: 0, toData: true) == 0)
    #expect(try system.seek(handle, from: 0, toData: false) == 8192)
  }
}
