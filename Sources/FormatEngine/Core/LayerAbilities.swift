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
  /// In the order of the image's own list.
  func snapshots() throws(EngineError) -> [SnapshotRecord]
  /// The snapshot as a read-only layer over the same file.
  func openSnapshot(_ record: SnapshotRecord) throws(EngineError) -> any ImageLayer
}

/// A layer whose metadata can be checked.
public protocol Checkable: ImageLayer {
  func check(progress: Progress) throws(EngineError) -> CheckReport
}

/// What a check found.
public struct CheckReport: Equatable, Sendable {
  /// One sentence each, beginning with ERROR or Leaked, as qemu-img prints them.
  public var findings: [String] = []
  public var corruptions: UInt64 = 0
  public var leaks: UInt64 = 0
  /// Things that could not be checked because of I/O errors.
  public var checkErrors: UInt64 = 0
  /// First byte after the last cluster in use, nil where the format cannot tell.
  public var imageEndOffset: UInt64?
  /// Guest clusters: in the disk, with room in the file, of them compressed, of them not next to their
  /// predecessor.
  public var totalClusters: UInt64 = 0
  public var allocatedClusters: UInt64 = 0
  public var compressedClusters: UInt64 = 0
  public var fragmentedClusters: UInt64 = 0

  public init() {}
}

/// A value in the format-specific part of `info`, in print order.
public indirect enum InfoValue: Equatable, Sendable {
  case text(String)
  case integer(Int64)
  case flag(Bool)
  case list([InfoValue])
  case record([InfoField])
}

/// A named value; the name is the JSON key, and with spaces for hyphens the human label.
public struct InfoField: Equatable, Sendable {
  public var key: String
  public var value: InfoValue

  public init(_ key: String, _ value: InfoValue) {
    self.key = key
    self.value = value
  }
}

/// A layer with more to tell than every format has.
public protocol SelfDescribing: ImageLayer {
  /// The `format-specific` record of `info`, nil where the format has none.
  var formatSpecificInfo: [InfoField]? { get }
  /// Whether the image was not closed properly and needs repair before its counts can be trusted.
  var isDirty: Bool? { get }
  var isEncrypted: Bool { get }
  var isCompressedByDefault: Bool { get }
  /// Bytes of the files beyond the image file itself (external data file) that this layer has open.
  var extraFiles: [NamedStore] { get }
}

/// One of a layer's further files, with the role that qemu-img gives it ("data-file").
public struct NamedStore: Sendable {
  public var role: String
  public var path: String
  public var store: any ByteStore

  public init(role: String, path: String, store: any ByteStore) {
    self.role = role
    self.path = path
    self.store = store
  }
}
