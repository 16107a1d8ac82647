import FormatEngine
import Synchronization

/// A point in time as file systems keep it.
struct FileTime: Equatable, Sendable {
  /// Seconds since the Epoch, and nanoseconds beyond them.
  var seconds: Int64
  var nanoseconds: Int64
}

/// A file or a folder of the mounted tree. What it is never changes, and its number is never used again: where a
/// name comes to mean something else, it gets another node.
final class Node: Sendable {
  enum Content: Sendable {
    case folder(Folder)
    case disk(DiskFile)
    case text(TextFile)
    /// A symbolic link: what it leads to, from the folder it stands in.
    case link([UInt8])
  }

  /// The inode number.
  let id: UInt64
  /// The inode number of the folder that holds it; the root holds itself.
  let parentID: UInt64
  let name: [UInt8]
  let time: FileTime
  let content: Content
  /// What it stands for, besides its name: a folder that is filled anew keeps the nodes that stand for the same.
  let token: String
  /// What `getfattr` shows of it.
  let extended: ExtendedAttributes

  init(
    id: UInt64, parentID: UInt64, name: [UInt8], time: FileTime, token: String = "",
    extended: ExtendedAttributes = .none, content: Content
  ) {
    self.id = id
    self.parentID = parentID
    self.name = name
    self.time = time
    self.token = token
    self.extended = extended
    self.content = content
  }

  var isFolder: Bool { if case .folder = content { true } else { false } }
}

/// The extended attributes of a node, found out when they are asked for. Their names begin with `user.imgfs.`.
struct ExtendedAttributes: Sendable {
  static let prefix = "user.imgfs."
  static let none = ExtendedAttributes { [] }

  /// Names without the prefix, and their values.
  let list: @Sendable () throws(EngineError) -> [(name: String, value: String)]

  init(_ list: @escaping @Sendable () throws(EngineError) -> [(name: String, value: String)]) {
    self.list = list
  }
}
