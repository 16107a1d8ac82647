import FormatEngine

/// The nodes that the kernel knows, by inode number, and how often it was told of each: FUSE's lookup
/// count. The kernel may ask about a node until it has forgotten it as often as it was told.
final class NodeTable: Sendable {
  private struct Entry {
    var node: Node
    var lookupCount: UInt64
  }

  private let root: Node
  private let entries = Guarded<[UInt64: Entry]>([:])

  /// The root is always known.
  init(root: Node) { self.root = root }

  /// The node with this number, or nil where the kernel was not told of one or has forgotten it.
  func node(_ id: UInt64) -> Node? {
    if id == root.id { return root }
    return entries.withLock { $0[id]?.node }
  }

  /// The kernel was told of `node` once more.
  func remember(_ node: Node) {
    guard node.id != root.id else { return }
    entries.withLock { $0[node.id, default: Entry(node: node, lookupCount: 0)].lookupCount += 1 }
  }

  /// The kernel forgets the node `count` times. Returns the node where it does not know it any more.
  @discardableResult
  func forget(_ id: UInt64, count: UInt64) -> Node? {
    guard id != root.id else { return nil }
    return entries.withLock { entries in
      guard var entry = entries[id] else { return nil }
      guard entry.lookupCount > count else {
        entries[id] = nil
        return entry.node
      }
      entry.lookupCount -= count
      entries[id] = entry
      return nil
    }
  }

  /// How many nodes are known besides the root.
  var count: Int { entries.withLock { $0.count } }
}
