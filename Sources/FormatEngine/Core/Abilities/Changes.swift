// What some formats can do. Asked for with `as?` once per command, never inside a loop.

/// A layer whose disk can get another size.
public protocol Resizable: WritableLayer {
  /// The new bytes read as zeros, whatever lies below; where the whole file is one encrypted run they read as what
  /// a new image's do. Fewer bytes: what is beyond them is gone.
  ///
  /// `preallocation` is for the bytes that are added. `clearing` is called once where the disk grows, when the
  /// layer takes the new bytes but before the new size is recorded: it makes zeros of those that would
  /// read otherwise. On disk when it returns.
  func resize(
    to virtualSize: UInt64, preallocation: Preallocation, progress: Progress,
    clearing: () throws(EngineError) -> Void) throws(EngineError)
  /// Whether fewer bytes are possible.
  var canShrink: Bool { get }
}

extension Resizable {
  public var canShrink: Bool { true }
}

/// A layer that records the file below it.
public protocol BackingChanging: WritableLayer {
  /// Guest bytes, a power of two, that can be stored without those around them.
  var storedUnit: UInt64 { get }
  /// What `setZeros` made reads as zeros whatever comes to lie below.
  var marksZeros: Bool { get }
  /// Records another backing file, or none. Nothing that the layer stores changes. On disk when it returns.
  func setBacking(_ backing: BackingReference?) throws(EngineError)
}

/// A layer that can let go of all that it stores at once.
public protocol Emptyable: WritableLayer {
  /// Everything reads as `below` afterwards; snapshots stay. On disk when it returns.
  func removeContent(progress: Progress) throws(EngineError)
}

/// A layer whose features can be changed after its making.
public protocol Amendable: WritableLayer {
  /// What `amend -o` takes.
  static var amendOptions: OptionSchema { get }
  /// Changes what `options` give. On disk when it returns. `resizing` gives the disk another size.
  func amend(
    _ options: OptionValues, _ request: AmendRequest, progress: Progress,
    resizing: (UInt64) throws(EngineError) -> Void) throws(EngineError)
}

/// A format whose layers are `Amendable`.
public protocol AmendableFormat: ImageFormat {
  /// What their `amendOptions` are, known before an image is open.
  static var amendOptions: OptionSchema { get }
}

/// What goes with the options of an amendment.
public struct AmendRequest: Sendable {
  /// Passphrases that the options name.
  public var secrets: SecretStore
  /// Goes on where a mistake would lose the last way to the data.
  public var isForced: Bool

  public init(secrets: SecretStore = SecretStore(), isForced: Bool = false) {
    self.secrets = secrets
    self.isForced = isForced
  }
}

/// How much of a disk is set aside in advance.
public enum Preallocation: String, Sendable {
  case off
  /// Tables only.
  case metadata
  /// Tables, and room on the host by fallocate.
  case falloc
  /// Tables, and zeros written.
  case full
}
