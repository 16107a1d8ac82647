import FormatEngine

/// Builds the tree of one image: its disk, its partitions, its internal snapshots, the files that it is made of.
///
///     disk.raw  info.json  map.json  partitions/
///     snapshots/NAME/  disk.raw  info.json  partitions/
///     layers/N-NAME/   disk.raw  delta.raw  info.json  partitions/  snapshots/
///
/// Folders are filled when they are first looked into: an image may have thousands of snapshots.
final class ImageTree: Sendable {
  private struct Attempts {
    /// How often opening the image has become due again.
    var count: UInt64 = 0
    /// Seconds of the monotonic clock when it failed; nil: it did not.
    var failedAt: Double?
  }

  let session: ImageSession
  private let numbers: NodeNumbers
  /// Whether the image may be one that cannot be opened: its folder then says why.
  private let mayFail: Bool
  private let attempts = Guarded(Attempts())

  init(_ session: ImageSession, _ numbers: NodeNumbers, mayFail: Bool = false) {
    self.session = session
    self.numbers = numbers
    self.mayFail = mayFail
  }

  var isWritable: Bool { session.access.isWritable }
  /// Whether opening the image failed when it was last tried for its folder.
  var hasFailed: Bool { attempts.withLock { $0.failedAt != nil } }

  // MARK: The image's own folder

  /// The folder of the image: the root of the mount, or a folder with a name in another one.
  func makeFolder(
    id: UInt64 = NodeNumbers.root, parentID: UInt64 = NodeNumbers.root, name: [UInt8] = [],
    token: String = "", time: FileTime? = nil
  ) -> Node {
    let time = time ?? timeOfImage
    let folder = Folder(version: mayFail ? version : version(followsChanges: true)) {
      (previous) throws(EngineError) in
      let place = Place(in: id, time: time, previous: previous)
      do throws(EngineError) {
        let nodes = try self.nodes(place)
        self.attempts.withLock { $0.failedAt = nil }
        return nodes
      } catch {
        // What has ended has another folder in its place.
        guard self.mayFail, !self.session.hasEnded else { throw error }
        self.attempts.withLock { $0.failedAt = HostClock.steadySeconds }
        return [self.errorNode(error, place)]
      }
    }
    return Node(
      id: id, parentID: parentID, name: name, time: time, token: token, extended: attributes(ofLayerAt: 0),
      content: .folder(folder))
  }

  private var timeOfImage: FileTime {
    let time = try? session.withChain { (chain) throws(EngineError) in Self.time(of: chain.members[0]) }
    return time ?? FileTime(seconds: 0, nanoseconds: 0)
  }

  /// Of a folder whose image may not open: that is tried again, once a second. Neither count gets less.
  private func version() throws(EngineError) -> UInt64 {
    let attempt = attempts.withLock { attempts in
      if let failedAt = attempts.failedAt, HostClock.steadySeconds - failedAt >= 1 {
        attempts.count += 1
        attempts.failedAt = nil
      }
      return attempts.count
    }
    return attempt + (isWritable ? session.changes : 0)
  }

  private func nodes(_ place: Place) throws(EngineError) -> [Node] {
    let (size, snapshots) = try session.withChain { (chain) throws(EngineError) in
      (chain.virtualSize, chain.top is any SnapshotChanging)
    }
    let view = DiskView(session: session, source: .live, listedByteCount: size)
    return [
      diskNode("disk.raw", view, place, attributes(ofLayerAt: 0)),
      textNode("info.json", place, isLive: isWritable) { (chain) throws(EngineError) in
        try Description.info(of: chain.members[0])
      },
      textNode("map.json", place, isLive: isWritable) { (chain) throws(EngineError) in
        try Description.map(of: chain)
      },
      partitionsNode(view, place),
      snapshotsNode(ofLayerAt: 0, place, mayChange: isWritable && snapshots),
      folderNode("layers", place) { (place) throws(EngineError) in try self.layerNodes(place) },
    ]
  }

  /// Says in words why something cannot be shown.
  func errorNode(_ error: EngineError, _ place: Place) -> Node {
    let text = (error.text + "\n").hostBytes
    return node(Array("error.txt".utf8), token: error.message, place) { _ in
      .text(TextFile(isLive: true) { () throws(EngineError) in text })
    }
  }

  // MARK: Nodes

  /// Where nodes are made.
  struct Place {
    /// The inode number of the folder.
    let id: UInt64
    let time: FileTime
    /// What the folder held until now.
    let previous: Folder.Listing?

    init(in id: UInt64, time: FileTime, previous: Folder.Listing?) {
      (self.id, self.time, self.previous) = (id, time, previous)
    }
  }

  /// The node that the folder has already for the same thing, or a new one.
  func node(
    _ name: [UInt8], token: String = "", _ place: Place, time: FileTime? = nil,
    extended: ExtendedAttributes = .none, _ content: (_ id: UInt64) -> Node.Content
  ) -> Node {
    if let old = place.previous?.node(named: name), old.token == token { return old }
    let id = numbers.take()
    return Node(
      id: id, parentID: place.id, name: name, time: time ?? place.time, token: token, extended: extended,
      content: content(id))
  }

  func diskNode(
    _ name: String, _ view: DiskView, _ place: Place, token: String = "",
    _ extended: ExtendedAttributes = .none
  ) -> Node {
    node(Array(name.utf8), token: token, place, extended: extended) { _ in .disk(DiskFile(view)) }
  }

  /// A text of the image. A live one is another file after each change.
  func textNode(
    _ name: String, _ place: Place, isLive: Bool = false,
    _ write: @escaping @Sendable (ImageChain) throws(EngineError) -> [UInt8]
  ) -> Node {
    let session = session
    return node(Array(name.utf8), token: isLive ? String(session.changes) : "", place) { _ in
      .text(TextFile(isLive: isWritable) { () throws(EngineError) in try session.withChain(write) })
    }
  }

  private func folderNode(
    _ name: String, _ place: Place,
    _ fill: @escaping @Sendable (Place) throws(EngineError) -> [Node]
  ) -> Node {
    folderNode(Array(name.utf8), place, time: place.time, fill: fill)
  }

  /// A folder that `fill` fills. In a tree that can be written it is filled anew when the tree's shape changed, or,
  /// with `followsChanges`, any byte of the disk.
  func folderNode(
    _ name: [UInt8], token: String = "", _ place: Place, time: FileTime, followsChanges: Bool = false,
    extended: ExtendedAttributes = .none, changes: Folder.Changes? = nil,
    fill: @escaping @Sendable (Place) throws(EngineError) -> [Node]
  ) -> Node {
    let version = version(followsChanges: followsChanges)
    return node(name, token: token, place, time: time, extended: extended) { id in
      .folder(
        Folder(version: version, changes: changes) { (previous) throws(EngineError) in
          try fill(Place(in: id, time: time, previous: previous))
        })
    }
  }

  /// Nil where the tree never changes.
  private func version(followsChanges: Bool) -> Folder.Version? {
    guard isWritable else { return nil }
    let session = session
    return { () throws(EngineError) -> UInt64 in followsChanges ? session.changes : session.shape }
  }

  /// When the image file was last changed.
  static func time(of member: ChainMember) -> FileTime {
    guard let file = member.file as? FileStore, let time = try? file.modificationTime() else {
      return FileTime(seconds: 0, nanoseconds: 0)
    }
    return FileTime(seconds: time.seconds, nanoseconds: time.nanoseconds)
  }
}
