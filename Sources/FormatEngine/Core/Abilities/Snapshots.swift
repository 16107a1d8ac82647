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

  public init(
    id: String, name: String, dateSeconds: Int64, dateNanoseconds: UInt32, vmClock: UInt64,
    vmStateSize: UInt64, virtualSize: UInt64, instructionCount: UInt64? = nil
  ) {
    self.id = id
    self.name = name
    self.dateSeconds = dateSeconds
    self.dateNanoseconds = dateNanoseconds
    self.vmClock = vmClock
    self.vmStateSize = vmStateSize
    self.virtualSize = virtualSize
    self.instructionCount = instructionCount
  }
}

/// A layer that holds earlier states of itself.
public protocol SnapshotKeeping: ImageLayer {
  /// In the order of the image's own list, with as much of long ids and names as qemu-img tells.
  func snapshots() throws(EngineError) -> [SnapshotRecord]
  /// The snapshot as a read-only layer over the same file. It stays readable, whatever happens to the disk and to other
  /// snapshots, until it is itself deleted.
  func openSnapshot(_ record: SnapshotRecord) throws(EngineError) -> any ImageLayer
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
