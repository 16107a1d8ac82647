import Synchronization

/// Hands out inode numbers, each once.
final class NodeNumbers: Sendable {
  /// The inode number of the root, which FUSE fixes.
  static let root: UInt64 = 1

  private let next = Atomic<UInt64>(NodeNumbers.root + 1)

  func take() -> UInt64 { next.add(1, ordering: .relaxed).oldValue }
}
