// What some formats can do. Asked for with `as?` once per command, never inside a loop.

/// An internal snapshot as the image lists it.
public struct SnapshotRecord: Equatable, Sendable {
  /// Unique in the image; qemu-img's are decimal numbers.
  public var id: String
  public var name: String
  /// Seconds since the Epoch, and nanoseconds beyond them.
  public var dateSeconds: Int64
  public var dateNanoseconds: UInt32
  /// Nanoseconds that the guest had run.
  public var vmClock: UInt64
  /// Bytes of VM state.
  public var vmStateSize: UInt64
  /// Guest bytes of the disk at that time.
  public var virtualSize: UInt64
  /// Instruction count at that time; nil where it was not recorded.
  public var instructionCount: UInt64?
  /// Where the image has the snapshot's disk: other than in images that somebody made up, each has a place of its own, and two
  /// with one place are the same disk.
  public var place: UInt64

  public init(
    id: String, name: String, dateSeconds: Int64, dateNanoseconds: UInt32, vmClock: UInt64,
    vmStateSize: UInt64, virtualSize: UInt64, instructionCount: UInt64? = nil,
    place: UInt64 = 0
  ) {
    self.id = id
    self.name = name
    self.dateSeconds = dateSeconds
    self.dateNanoseconds = dateNanoseconds
    self.vmClock = vmClock
    self.vmStateSize = vmStateSize
    self.virtualSize = virtualSize
    self.instructionCount = instructionCount
    self.place = place
  }
}

extension SnapshotRecord {
  /// Bytes of an id and of a name that lists show, as with qemu-img.
  public static let (shownIDByteCount, shownNameByteCount) = (127, 255)

  /// The same as lists show it.
  public var shown: SnapshotRecord {
    var record = self
    if id.utf8.count > Self.shownIDByteCount {
      record.id = String(hostBytes: id.hostBytes.prefix(Self.shownIDByteCount))
    }
    if name.utf8.count > Self.shownNameByteCount {
      record.name = String(hostBytes: name.hostBytes.prefix(Self.shownNameByteCount))
    }
    return record
  }
}

extension [SnapshotRecord] {
  /// The first snapshot with this id, or else the first with this name.
  public func first(idOrName text: String) -> SnapshotRecord? {
    first(id: text, name: nil) ?? first(id: nil, name: text)
  }

  /// The first with this id and this name; nil: any. Byte by byte: strings are equal, too, where they are one text in two
  /// encodings.
  public func first(id: String?, name: String?) -> SnapshotRecord? {
    first { record in
      (id.map { $0.utf8.elementsEqual(record.id.utf8) } ?? true)
        && (name.map { $0.utf8.elementsEqual(record.name.utf8) } ?? true)
    }
  }
}

/// A layer that holds earlier states of itself.
public protocol SnapshotKeeping: ImageLayer {
  /// In the order of the image's own list.
  func snapshots() throws(EngineError) -> [SnapshotRecord]
  /// The same as lists show it, in less memory. Its records are as good for opening, applying and deleting.
  func shownSnapshots() throws(EngineError) -> [SnapshotRecord]
  /// The snapshot as a read-only layer over the same file. It stays readable, whatever happens to the disk and to other
  /// snapshots, until it is itself deleted.
  func openSnapshot(_ record: SnapshotRecord) throws(EngineError) -> any ImageLayer
}

extension SnapshotKeeping {
  public func shownSnapshots() throws(EngineError) -> [SnapshotRecord] { try snapshots().map(\.shown) }
}

/// A layer whose snapshots can be made, gone back to and deleted. Each call is done whole or not at all, also
/// where the power fails in its middle, and is on disk when it returns.
///
/// The caller sees to it that nothing else reads or writes the disk meanwhile (`ImageChain.changingWhole`), and that nobody reads a
/// snapshot any more that is deleted. Other snapshots may be opened and read.
public protocol SnapshotChanging: SnapshotKeeping, WritableLayer {
  /// Keeps the disk as it is now. The id is the lowest decimal number above all that are in use.
  @discardableResult
  func createSnapshot(named name: String, at date: SnapshotDate) throws(EngineError) -> SnapshotRecord
  /// Makes the disk what it was, its size included. What it was until now is lost.
  func applySnapshot(_ record: SnapshotRecord) throws(EngineError)
  /// Frees what only this snapshot holds.
  func deleteSnapshot(_ record: SnapshotRecord) throws(EngineError)
}

/// When a snapshot was taken: since the Epoch.
public struct SnapshotDate: Equatable, Sendable {
  public var seconds: Int64
  public var nanoseconds: UInt32

  public init(seconds: Int64, nanoseconds: UInt32) {
    self.seconds = seconds
    self.nanoseconds = nanoseconds
  }
}
