// What some formats can do. Asked for with `as?` once per command, never inside a loop.

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
  /// Whether `info` shows the unit of allocation and whether the image is dirty: QEMU knows neither of some formats.
  var tellsUnit: Bool { get }
  var isEncrypted: Bool { get }
  var isCompressedByDefault: Bool { get }
  /// Bytes of the files beyond the image file itself (external data file) that this layer has open.
  var extraFiles: [NamedStore] { get }
}

extension SelfDescribing {
  public var tellsUnit: Bool { true }
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
