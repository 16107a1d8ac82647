import FormatEngine
import Glibc

/// The mounted tree as file system calls see it, in Swift terms: FUSE's callbacks translate to and from
/// here, and tests call it without a mount. Any thread may call any method at any time.
///
/// Lock order: a folder's, a disk's or a text's own lock -> a session's -> the engine's locks. The tables' locks are
/// held for a lookup only, and no other lock is taken meanwhile.
final class FileSystem: Sendable {
  let root: Node
  private let nodes: NodeTable
  let openFiles = OpenTable()
  /// Bytes of all disks together, for `statfs`.
  private let countCapacity: @Sendable () -> UInt64
  /// What may be asked of the mount, by the attributes of the root.
  let requests: [String: MountRequest]

  init(
    root: Node, requests: [String: MountRequest] = [:],
    capacity: @escaping @Sendable () -> UInt64 = { 0 }
  ) {
    self.root = root
    self.requests = requests
    nodes = NodeTable(root: root)
    countCapacity = capacity
  }

  /// The tree of one image.
  convenience init(_ session: ImageSession, requests: [String: MountRequest] = [:]) {
    let tree = ImageTree(session, NodeNumbers())
    self.init(root: tree.makeFolder(), requests: requests) {
      let size = try? session.withChain { (chain) throws(EngineError) in chain.virtualSize }
      return size ?? 0
    }
  }

  /// The tree of several images.
  convenience init(_ shelf: ImageShelf, requests: [String: MountRequest] = [:]) {
    self.init(root: ShelfTree(shelf).makeRoot(), requests: requests) { shelf.capacity }
  }

  var capacity: UInt64 { countCapacity() }

  // MARK: Names

  /// The node called `name` in a folder, nil where there is none. It is remembered once more.
  func lookUp(_ name: [UInt8], in folderID: UInt64) throws(EngineError) -> Lookup {
    let folder = try folder(folderID).1
    // FUSE passes on longer ones than the file system says that it has.
    guard name.count <= SafeName.maximumByteCount else { throw .system(ENAMETOOLONG) }
    guard let node = try folder.listing().node(named: name) else {
      return Lookup(found: nil, hasLastingName: folder.isFixed)
    }
    var attributes = firstAttributes(of: node)
    if !attributes.hasSize { try findSize(of: node, &attributes) }
    attributes.hasLastingName = folder.isFixed
    // What ends in an error the kernel does not know, and never forgets.
    nodes.remember(node)
    return Lookup(found: attributes, hasLastingName: folder.isFixed)
  }

  /// What a name was found to mean; also that there is no such name may last.
  struct Lookup {
    var found: Attributes?
    var hasLastingName: Bool
  }

  func forget(_ id: UInt64, count: UInt64) {
    if case .text(let text)? = nodes.forget(id, count: count)?.content { text.release() }
  }

  /// Opens a folder for `entries`.
  func openFolder(_ id: UInt64) throws(EngineError) -> UInt64 {
    openFiles.insert(.folder(try folder(id).1.listing()), of: id)
  }

  /// Calls `body` with each entry of an open folder from `position` on, "." and ".." first, until it returns
  /// false. `next` is the position to go on from; the entries are those that there were when the folder was opened, or
  /// last read from its beginning. With `remembering`, every entry that `body` takes
  /// counts as a lookup, except "." and ".." and those without a size.
  func entries(
    of folderID: UInt64, _ handle: UInt64, from position: UInt64, remembering: Bool,
    _ body: (_ name: [UInt8], _ attributes: Attributes, _ next: UInt64) -> Bool
  ) throws(EngineError) {
    let (node, folder) = try folder(folderID)
    if position == 0 { openFiles.replace(handle, .folder(try folder.listing())) }
    guard case .folder(let listing) = try file(handle) else { throw .system(EBADF) }
    var index = position
    while index < UInt64(listing.nodes.count) + 2 {
      if index < 2 {
        var attributes = firstAttributes(of: node)
        if index == 1 { attributes.id = node.parentID }
        let name = [UInt8](repeating: UInt8(ascii: "."), count: Int(index) + 1)
        guard body(name, attributes, index + 1) else { return }
      } else {
        let entry = listing.nodes[Int(index) - 2]
        var attributes = firstAttributes(of: entry)
        attributes.hasLastingName = folder.isFixed
        guard body(entry.name, attributes, index + 1) else { return }
        if remembering && attributes.hasSize { nodes.remember(entry) }
      }
      index += 1
    }
  }

  /// Whether what a folder holds stays the same for as long as the tree is mounted.
  func isFixed(_ folderID: UInt64) throws(EngineError) -> Bool { try folder(folderID).1.isFixed }

  /// What a symbolic link leads to.
  func target(of id: UInt64) throws(EngineError) -> [UInt8] {
    guard case .link(let target) = try node(id).content else { throw .system(EINVAL) }
    return target
  }

  // MARK: Attributes

  /// All that `stat` shows, found out where it was not known before.
  func attributes(of id: UInt64) throws(EngineError) -> Attributes { exactAttributes(of: try node(id)) }

  /// What is known of them without counting what takes room.
  func briefAttributes(of id: UInt64) throws(EngineError) -> Attributes {
    let node = try node(id)
    var attributes = firstAttributes(of: node)
    try findSize(of: node, &attributes)
    return attributes
  }

  /// What is damaged has attributes too, if only guessed ones; it is `open` that says what is wrong.
  private func exactAttributes(of node: Node) -> Attributes {
    var attributes = firstAttributes(of: node)
    if attributes.isExact { return attributes }
    do throws(EngineError) {
      switch node.content {
      case .folder, .link: break
      case .disk(let disk):
        attributes.byteCount = try disk.opened().byteCount
        guard let allocated = try disk.allocatedByteCount() else { break }
        attributes.allocatedByteCount = allocated
        attributes.isExact = true
      case .text(let text):
        attributes.byteCount = try text.byteCount()
        attributes.allocatedByteCount = attributes.byteCount
        attributes.isExact = true
      }
    } catch {}
    attributes.hasSize = true
    return attributes
  }

  private func findSize(of node: Node, _ attributes: inout Attributes) throws(EngineError) {
    switch node.content {
    case .folder, .link: break
    case .disk(let disk): attributes.byteCount = try disk.opened().byteCount
    // What cannot be written has no size; `open` says why.
    case .text(let text): attributes.byteCount = (try? text.byteCount()) ?? 0
    }
    attributes.hasSize = true
  }

  /// What is known without reading anything.
  private func firstAttributes(of node: Node) -> Attributes {
    var attributes = Attributes(
      id: node.id, kind: .file, byteCount: 0, allocatedByteCount: 0, time: node.time, isWritable: false,
      isExact: true, isLasting: true, hasLastingName: true)
    switch node.content {
    case .folder(let folder):
      attributes.kind = .folder
      // Requests are made by setting an attribute of the root.
      attributes.isWritable = folder.changes != nil || (node.id == root.id && !requests.isEmpty)
    case .link(let target):
      attributes.kind = .link
      attributes.byteCount = UInt64(target.count)
    case .disk(let disk):
      let known = disk.knownAllocatedByteCount
      attributes.byteCount = disk.view.byteCount
      attributes.allocatedByteCount = known ?? attributes.byteCount
      attributes.isExact = known != nil
      attributes.isWritable = disk.view.isWritable
      attributes.isLasting = !(disk.view.follows && disk.view.session.access.isWritable)
      attributes.time = disk.time(node.time)
      // What is true of a disk that changes is asked for when it is wanted.
      if !attributes.isLasting {
        attributes.isExact = false
        attributes.hasSize = disk.view.window != nil
      }
    case .text(let text):
      attributes.byteCount = text.knownByteCount ?? 0
      attributes.allocatedByteCount = attributes.byteCount
      attributes.isExact = text.knownByteCount != nil
      attributes.hasSize = attributes.isExact || !text.isLive
    }
    return attributes
  }

  // MARK: Open files

  /// Opens a file and gives its handle, and what the kernel has to know of it.
  func open(_ id: UInt64, forWriting: Bool) throws(EngineError) -> Opened {
    let node = try node(id)
    switch node.content {
    case .folder: throw .system(EISDIR)
    case .link: throw .system(ELOOP)
    case .disk(let disk):
      if forWriting && !disk.view.isWritable {
        throw disk.view.session.access.isWritable
          ? .system(EACCES) : EngineError(.readOnly, "The image is mounted read-only")
      }
      let opened = try disk.opened()
      if forWriting && !opened.isWritable {
        throw EngineError(.readOnly, "The image could only be opened for reading")
      }
      let hold = forWriting ? try disk.holdForWriting() : nil
      return Opened(
        handle: openFiles.insert(.disk(opened), of: id, forWriting: forWriting, hold),
        keepsCache: disk.keepsCache(), bypassesCache: false)
    case .text(let text):
      if forWriting { throw .system(text.isLive ? EACCES : EROFS) }
      let handle = openFiles.insert(.text(try text.content()), of: id)
      return Opened(handle: handle, keepsCache: !text.isLive, bypassesCache: text.isLive)
    }
  }

  struct Opened {
    var handle: UInt64
    /// Whether what the kernel keeps of the file's bytes is still true.
    var keepsCache: Bool
    /// Whether the kernel is to ask for the bytes each time, whatever size it thinks the file has.
    var bypassesCache: Bool
  }

  func close(_ handle: UInt64) { openFiles.remove(handle) }

  /// The file that a handle stands for.
  func file(_ handle: UInt64) throws(EngineError) -> OpenFile {
    guard let file = openFiles[handle] else { throw .system(EBADF) }
    return file
  }

  /// Where data or a hole next begins (SEEK_DATA, SEEK_HOLE). Where not `isAllKnown`, there may be data that has not come
  /// here yet, anywhere.
  func seek(_ handle: UInt64, from offset: UInt64, toData: Bool, isAllKnown: Bool = true)
    throws(EngineError) -> UInt64
  {
    var found: UInt64?
    switch try file(handle) {
    case .disk(let disk) where !isAllKnown:
      if offset < disk.byteCount { found = toData ? offset : disk.byteCount }
    case .disk(let disk): found = disk.seek(from: offset, toData: toData)
    case .folder: throw .system(EISDIR)
    case .text(let text):
      if offset < UInt64(text.count) { found = toData ? offset : UInt64(text.count) }
    }
    guard let found else { throw .system(ENXIO) }
    return found
  }

  func node(_ id: UInt64) throws(EngineError) -> Node {
    guard let node = nodes.node(id) else { throw .system(ESTALE) }
    return node
  }

  func folder(_ id: UInt64) throws(EngineError) -> (Node, Folder) {
    let node = try node(id)
    guard case .folder(let folder) = node.content else { throw .system(ENOTDIR) }
    return (node, folder)
  }
}

extension OpenFile {
  /// Bytes of a request that lie inside the file.
  func readable(at offset: UInt64, count: Int) -> Int {
    let end =
      switch self {
      case .disk(let disk): disk.byteCount
      case .text(let text): UInt64(text.count)
      case .folder: UInt64(0)
      }
    return offset < end ? Int(min(UInt64(count), end - offset)) : 0
  }
}
