import FormatEngine
import Synchronization

/// A point in time as file systems keep it.
struct FileTime: Equatable, Sendable {
  /// Seconds since the Epoch, and nanoseconds beyond them.
  var seconds: Int64
  var nanoseconds: Int64

  init(seconds: Int64, nanoseconds: Int64) { (self.seconds, self.nanoseconds) = (seconds, nanoseconds) }

  /// Nanoseconds since the Epoch, not before it.
  init(nanosecondsSinceEpoch count: Int64) {
    self.init(seconds: count / 1_000_000_000, nanoseconds: count % 1_000_000_000)
  }

  static var now: FileTime { FileTime(nanosecondsSinceEpoch: HostClock.coarseNanoseconds) }
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

/// The extended attributes of a node. Their names begin with `user.imgfs.`; here they are without that.
struct ExtendedAttributes: Sendable {
  static let prefix = "user.imgfs."
  static let none = ExtendedAttributes { [] }

  typealias List = [(name: String, value: String)]

  /// Names of those that there are. Whoever asks for the names of a folder's files wants no image opened for that.
  let names: @Sendable () -> [String]
  /// The value of an attribute, nil where there is none of that name.
  let value: @Sendable (_ name: String) throws(EngineError) -> String?

  init(
    names: @escaping @Sendable () -> [String],
    value: @escaping @Sendable (_ name: String) throws(EngineError) -> String?
  ) {
    (self.names, self.value) = (names, value)
  }

  /// Those of which only the values tell whether they are there; where these cannot be found out, none is named.
  init(_ list: @escaping @Sendable () throws(EngineError) -> List) {
    names = { (try? list())?.map(\.name) ?? [] }
    value = { (name) throws(EngineError) in try list().first { $0.name == name }?.value }
  }

  /// Those of `known` besides these, and in place of those of the same names.
  func with(_ known: List) -> ExtendedAttributes {
    let (names, value) = (names, value)
    return ExtendedAttributes {
      names().filter { name in !known.contains { $0.name == name } } + known.map(\.name)
    } value: { (name) throws(EngineError) in
      if let found = known.first(where: { $0.name == name }) { return found.value }
      return try value(name)
    }
  }
}
