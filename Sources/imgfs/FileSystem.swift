import FormatEngine
import Glibc

/// What `stat` shows of a file or folder, less its owner.
struct Attributes: Equatable, Sendable {
  var id: UInt64
  var isFolder: Bool
  var byteCount: UInt64
  /// Bytes that take room: what is not known to be zeros.
  var allocatedByteCount: UInt64
  var time: FileTime
  /// False: size and room are first guesses, since finding them out takes reading; ask `attributes`.
  var isExact: Bool
}

/// The mounted tree as file system calls see it, in Swift terms: FUSE's callbacks translate to and from
/// here, and tests call it without a mount. Any thread may call any method at any time.
///
/// Lock order: a folder's, a disk's or a text's own lock -> the engine's locks. The tables' locks are
/// held for a lookup only, and no other lock is taken meanwhile.
final class FileSystem: Sendable {
  private let root: Node
  private let nodes: NodeTable
  private let openFiles = OpenTable()
  private let diskByteCount: UInt64

  init(_ chain: ImageChain) {
    root = ImageTree(chain).makeRoot()
    nodes = NodeTable(root: root)
    diskByteCount = chain.virtualSize
  }

  /// The node called `name` in a folder, nil where there is none. It is remembered once more.
  func lookUp(_ name: [UInt8], in folderID: UInt64) throws(EngineError) -> Attributes? {
    guard let node = try folder(folderID).1.listing().node(named: name) else { return nil }
    nodes.remember(node)
    return firstAttributes(of: node)
  }

  func forget(_ id: UInt64, count: UInt64) {
    if case .text(let text)? = nodes.forget(id, count: count)?.content { text.release() }
  }

  /// All that `stat` shows, found out where it was not known before.
  func attributes(of id: UInt64) throws(EngineError) -> Attributes {
    let node = try node(id)
    var attributes = firstAttributes(of: node)
    if attributes.isExact { return attributes }
    // What is damaged has attributes too, if only guessed ones; it is `open` that says what is wrong.
    do throws(EngineError) {
      switch node.content {
      case .folder: break
      case .disk(let disk):
        attributes.byteCount = try disk.opened().byteCount
        attributes.allocatedByteCount = try disk.allocatedByteCount()
      case .text(let text):
        attributes.byteCount = try text.byteCount()
        attributes.allocatedByteCount = attributes.byteCount
      }
      attributes.isExact = true
    } catch {}
    return attributes
  }

  /// What is known without reading anything.
  private func firstAttributes(of node: Node) -> Attributes {
    var attributes = Attributes(
      id: node.id, isFolder: node.isFolder, byteCount: 0, allocatedByteCount: 0, time: node.time,
      isExact: true)
    switch node.content {
    case .folder: break
    case .disk(let disk):
      attributes.byteCount = min(disk.listedByteCount, maximumFileOffset)
      attributes.allocatedByteCount = disk.knownAllocatedByteCount ?? attributes.byteCount
      attributes.isExact = disk.knownAllocatedByteCount != nil
    case .text(let text):
      attributes.byteCount = text.knownByteCount ?? 0
      attributes.allocatedByteCount = attributes.byteCount
      attributes.isExact = text.knownByteCount != nil
    }
    return attributes
  }

  /// Calls `body` with each entry of a folder from `position` on, "." and ".." first, until it returns
  /// false. `next` is the position to go on from. With `remembering`, every entry that `body` takes
  /// counts as a lookup, except "." and "..".
  func entries(
    of folderID: UInt64, from position: UInt64, remembering: Bool,
    _ body: (_ name: [UInt8], _ attributes: Attributes, _ next: UInt64) -> Bool
  ) throws(EngineError) {
    let (node, folder) = try folder(folderID)
    let listing = try folder.listing()
    var index = position
    while index < UInt64(listing.nodes.count) + 2 {
      if index < 2 {
        var attributes = firstAttributes(of: node)
        if index == 1 { attributes.id = node.parentID }
        let name = [UInt8](repeating: UInt8(ascii: "."), count: Int(index) + 1)
        guard body(name, attributes, index + 1) else { return }
      } else {
        let entry = listing.nodes[Int(index) - 2]
        guard body(entry.name, firstAttributes(of: entry), index + 1) else { return }
        if remembering { nodes.remember(entry) }
      }
      index += 1
    }
  }

  /// Opens a file for reading and gives its handle.
  func open(_ id: UInt64, forWriting: Bool) throws(EngineError) -> UInt64 {
    let node = try node(id)
    if forWriting { throw EngineError(.readOnly, "The tree is read-only") }
    switch node.content {
    case .folder: throw Self.systemError(EISDIR)
    case .disk(let disk): return openFiles.insert(.disk(try disk.opened()))
    case .text(let text): return openFiles.insert(.text(try text.content()))
    }
  }

  func close(_ handle: UInt64) { openFiles.remove(handle) }

  /// The file that a handle stands for.
  func file(_ handle: UInt64) throws(EngineError) -> OpenFile {
    guard let file = openFiles[handle] else { throw Self.systemError(EBADF) }
    return file
  }

  /// Where data or a hole next begins (SEEK_DATA, SEEK_HOLE).
  func seek(_ handle: UInt64, from offset: UInt64, toData: Bool) throws(EngineError) -> UInt64 {
    var found: UInt64?
    switch try file(handle) {
    case .disk(let disk): found = disk.seek(from: offset, toData: toData)
    case .text(let text):
      if offset < UInt64(text.count) { found = toData ? offset : UInt64(text.count) }
    }
    guard let found else { throw Self.systemError(ENXIO) }
    return found
  }

  /// Bytes that the disk has, for `statfs`.
  var capacity: UInt64 { diskByteCount }

  private func node(_ id: UInt64) throws(EngineError) -> Node {
    guard let node = nodes.node(id) else { throw Self.systemError(ESTALE) }
    return node
  }

  private func folder(_ id: UInt64) throws(EngineError) -> (Node, Folder) {
    let node = try node(id)
    guard case .folder(let folder) = node.content else { throw Self.systemError(ENOTDIR) }
    return (node, folder)
  }

  private static func systemError(_ number: CInt) -> EngineError {
    EngineError(.system(errno: number), EngineError.systemErrorText(number))
  }
}

extension OpenFile {
  /// Bytes of a request that lie inside the file.
  func readable(at offset: UInt64, count: Int) -> Int {
    let end =
      switch self {
      case .disk(let disk): disk.byteCount
      case .text(let text): UInt64(text.count)
      }
    return offset < end ? Int(min(UInt64(count), end - offset)) : 0
  }
}
