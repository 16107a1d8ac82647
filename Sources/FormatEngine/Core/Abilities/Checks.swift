// What some formats can do. Asked for with `as?` once per command, never inside a loop.

/// A layer whose metadata can be checked.
public protocol Checkable: ImageLayer {
  func check(progress: Progress) throws(EngineError) -> CheckReport
}

/// How far a repair goes.
public enum RepairMode: Sendable, Equatable {
  /// Only gives back what nothing uses.
  case leaks
  /// Mends all that can be mended.
  case all
}

/// A layer whose metadata can be mended.
public protocol Repairable: Checkable {
  /// Checks and mends; the report's findings say what was done, its counts what is left.
  func repair(_ mode: RepairMode, progress: Progress) throws(EngineError) -> CheckReport
}

/// What a check found.
public struct CheckReport: Equatable, Sendable {
  /// One sentence each, beginning with ERROR or Leaked, as qemu-img prints them.
  public var findings: [String] = []
  public var corruptions: UInt64 = 0
  public var leaks: UInt64 = 0
  /// Mended, and so not counted above.
  public var corruptionsFixed: UInt64 = 0
  public var leaksFixed: UInt64 = 0
  /// Things that could not be checked because of I/O errors.
  public var checkErrors: UInt64 = 0
  /// Why the check or the repair came to no end, nil where it did. What stands in the other fields was found
  /// before.
  public var failure: CheckFailure?
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

/// Why a check came to no end.
public struct CheckFailure: Equatable, Sendable {
  /// What stands in its way, and what to do.
  public var explanation: String?
  /// In the words that the C library has for such an error.
  public var reason: String

  public init(_ reason: String, explanation: String? = nil) {
    self.reason = reason
    self.explanation = explanation
  }
}
