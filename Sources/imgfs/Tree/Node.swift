import FormatEngine
import Synchronization

/// A point in time as file systems keep it.
struct FileTime: Equatable, Sendable {
  /// Seconds since the Epoch, and nanoseconds beyond them.
  var seconds: Int64
  var nanoseconds: Int64
}

/// A file or a folder of the mounted tree. It never changes, and its number is never used again: names,
/// sizes and content of a read-only image stay what they are.
final class Node: Sendable {
  enum Content: Sendable {
    case folder(Folder)
    case disk(DiskFile)
    case text(TextFile)
  }

  /// The inode number.
  let id: UInt64
  /// The inode number of the folder that holds it; the root holds itself.
  let parentID: UInt64
  let name: [UInt8]
  let time: FileTime
  let content: Content

  init(id: UInt64, parentID: UInt64, name: [UInt8], time: FileTime, content: Content) {
    self.id = id
    self.parentID = parentID
    self.name = name
    self.time = time
    self.content = content
  }

  var isFolder: Bool { if case .folder = content { true } else { false } }
}

/// What a folder holds, found out when it is first asked for.
final class Folder: Sendable {
  struct Listing: Sendable {
    let nodes: [Node]
    private let positions: [[UInt8]: Int]

    init(_ nodes: [Node]) {
      self.nodes = nodes
      positions = Dictionary(
        nodes.enumerated().map { ($1.name, $0) }, uniquingKeysWith: { first, _ in first })
    }

    func node(named name: [UInt8]) -> Node? { positions[name].map { nodes[$0] } }
  }

  private let make: @Sendable () throws(EngineError) -> [Node]
  /// Held while the list is made, so that it is made once. Before every lock of the engine.
  private let made = Mutex<Listing?>(nil)

  init(_ make: @escaping @Sendable () throws(EngineError) -> [Node]) { self.make = make }

  /// The files and folders in it. Where finding out fails, the next call tries again.
  func listing() throws(EngineError) -> Listing {
    try made.withLock { (made) throws(EngineError) in
      if let made { return made }
      let listing = Listing(try make())
      made = listing
      return listing
    }
  }
}
