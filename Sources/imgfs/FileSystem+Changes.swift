import FormatEngine
import Glibc

/// What changes the tree or what is in it.
extension FileSystem {
  /// What somebody wants to change about a file; nil stays as it is.
  struct AttributeChanges {
    var byteCount: UInt64?
    /// Permissions, without the kind of file.
    var mode: UInt32?
    var userID: UInt32?
    var groupID: UInt32?
    var modified: FileTime?
  }

  /// Size and time can be changed, of what can be written. Owners and permissions are those of the mount.
  func change(_ id: UInt64, _ changes: AttributeChanges) throws(EngineError) {
    guard case .disk(let disk) = try node(id).content, disk.view.isWritable else {
      throw .notPermitted("Only the disk can be changed")
    }
    if changes.mode != nil || changes.userID != nil || changes.groupID != nil {
      throw .notPermitted("Owners and permissions are options of the mount")
    }
    if let byteCount = changes.byteCount { try disk.opened().resize(to: byteCount) }
    if let time = changes.modified { disk.setTime(time) }
  }

  /// Writes what of `bytes` lies inside the disk, and with `isSynchronous` returns when it is on disk. Says how many
  /// bytes that were.
  func write(_ bytes: UnsafeRawBufferPointer, to handle: UInt64, at offset: UInt64, isSynchronous: Bool)
    throws(EngineError) -> Int
  {
    let disk = try writableDisk(handle)
    let count = unsafe try disk.write(bytes, at: offset)
    if isSynchronous && count > 0 { try disk.flush() }
    return count
  }

  /// The numbers of the files that somebody has open to write them; with a handle only those that show the same disk.
  func openedForWriting(likeThatOf handle: UInt64? = nil) -> [UInt64] {
    guard let handle else { return openFiles.written { _ in true } }
    guard case .disk(let disk)? = openFiles[handle], disk.file.view.follows else { return [] }
    return openFiles.written { file in
      if case .disk(let other) = file { other.file.view.session === disk.file.view.session } else { false }
    }
  }

  /// The names that lead from the root to a node that the kernel knows; nil where they are not known.
  func path(of id: UInt64) -> [[UInt8]]? {
    var names: [[UInt8]] = []
    var id = id
    while id != root.id {
      guard let node = try? node(id) else { return nil }
      names.append(node.name)
      id = node.parentID
    }
    return names.reversed()
  }

  /// All that was written before is on disk when it returns.
  func flush(_ handle: UInt64) throws(EngineError) {
    if case .disk(let disk) = try file(handle) { try disk.flush() }
  }

  enum Allocation {
    /// The bytes read as zeros and take no room any more.
    case hole
    /// The bytes read as zeros and take the room they have.
    case zeros
  }

  /// fallocate(2), as far as it makes sense for a disk: it gets no longer. With `keepingSize` what is past its end is
  /// left alone; otherwise the file would have to grow, for which there is no room.
  func allocate(
    _ allocation: Allocation, in handle: UInt64, at offset: UInt64, count: UInt64, keepingSize: Bool
  ) throws(EngineError) {
    let disk = try writableDisk(handle)
    let end = disk.byteCount
    guard keepingSize || (offset <= end && count <= end - offset) else {
      throw EngineError(.noSpace, "The disk ends at \(end)", offset: offset)
    }
    guard offset < end else { return }
    try disk.writeZeros(
      at: offset, count: min(count, end - offset), keepingRoom: allocation == .zeros)
  }

  private func writableDisk(_ handle: UInt64) throws(EngineError) -> OpenDisk {
    guard case .disk(let disk) = try file(handle), disk.file.view.isWritable else { throw .system(EBADF) }
    return disk
  }

  /// mkdir(2): takes a snapshot, in the folder of the snapshots. The new node is remembered once.
  func makeFolder(_ name: [UInt8], in folderID: UInt64) throws(EngineError) -> Attributes {
    let folder = try folder(folderID).1
    guard let changes = folder.changes else { throw .notPermitted("Folders are made in 'snapshots' only") }
    guard try folder.listing().node(named: name) == nil else { throw .system(EEXIST) }
    try changes.makeFolder(name)
    guard let made = try lookUp(name, in: folderID).found else { throw .system(EIO) }
    return made
  }

  /// rmdir(2): deletes a snapshot.
  func removeFolder(_ name: [UInt8], in folderID: UInt64) throws(EngineError) {
    let folder = try folder(folderID).1
    guard let changes = folder.changes else { throw .notPermitted("Only snapshots can be deleted") }
    guard let node = try folder.listing().node(named: name) else { throw .system(ENOENT) }
    try changes.removeFolder(node)
  }

  // MARK: Extended attributes

  func extendedAttributeNames(of id: UInt64) throws(EngineError) -> [String] {
    try node(id).extended.names().map { ExtendedAttributes.prefix + $0 }
  }

  /// Nil where there is none of this name.
  func extendedAttribute(_ name: String, of id: UInt64) throws(EngineError) -> String? {
    // Asked for often, by whoever looks for access lists or capabilities.
    guard name.hasPrefix(ExtendedAttributes.prefix) else { return nil }
    if id == NodeNumbers.root, let request = requests[name] { return request.reason }
    return try node(id).extended.value(String(name.dropFirst(ExtendedAttributes.prefix.count)))
  }

  /// Those that can be set are requests to the mount, and the root's.
  func setExtendedAttribute(_ name: String, of id: UInt64) throws(EngineError) {
    _ = try node(id)
    guard name.hasPrefix(ExtendedAttributes.prefix) else { throw .system(EOPNOTSUPP) }
    let request = id == NodeNumbers.root ? requests[name] : nil
    if let request { return try request.run() }
    switch name {
    case MountRequest.commitName where id == NodeNumbers.root: throw .unsupported("The mount has no overlay")
    case MountRequest.flushName where id == NodeNumbers.root:
      throw .unsupported("Nothing can be written through the mount")
    default: throw .notPermitted("The attributes of the tree say what is; they cannot be set")
    }
  }
}
