import FormatEngine
import Glibc

extension ImageTree {
  /// The folder of a file's internal snapshots; empty for formats that have none.
  func snapshotsNode(ofLayerAt depth: Int, _ place: Place, mayChange: Bool) -> Node {
    let session = session
    let changes = Folder.Changes { (name) throws(EngineError) in
      try Self.takeSnapshot(named: name, of: session)
    } removeFolder: { (node) throws(EngineError) in
      try Self.deleteSnapshot(node, of: session)
    }
    return folderNode(
      Array("snapshots".utf8), place, time: place.time, changes: mayChange ? changes : nil
    ) { (place) throws(EngineError) in
      try self.snapshotNodes(ofLayerAt: depth, place)
    }
  }

  private func snapshotNodes(ofLayerAt depth: Int, _ place: Place) throws(EngineError) -> [Node] {
    let session = session
    return try session.withChain { (chain) throws(EngineError) in
      guard let layer = chain.members[depth].layer as? any SnapshotKeeping else { return [] }
      let records = try layer.shownSnapshots()
      let shared = SharedBySnapshots(
        session: session, depth: depth, extended: attributes(ofLayerAt: depth))
      return zip(records, SafeName.unique(records.map(\.name))).map { record, name in
        self.node(of: ShownSnapshot(record, shared), name, place)
      }
    }
  }

  private func node(of snapshot: ShownSnapshot, _ name: [UInt8], _ place: Place) -> Node {
    let record = snapshot.record
    let time = FileTime(
      seconds: record.dateSeconds, nanoseconds: Int64(min(record.dateNanoseconds, 999_999_999)))
    return folderNode(name, token: record.key, place, time: time, extended: snapshot.extended) { place in
      [
        self.diskNode("disk.raw", snapshot.view, place, snapshot.extended),
        self.textNode("info.json", place) { (chain) throws(EngineError) in
          try snapshot.shared.descriptions.info(of: snapshot.record, chain)
        },
        self.partitionsNode(snapshot.view, place),
      ]
    }
  }

  // MARK: Taking and deleting

  /// What the kernel still has of what was written before is not in it: whoever calls has had it written (`OwnMount`).
  private static func takeSnapshot(named name: [UInt8], of session: ImageSession) throws(EngineError) {
    let text = String(hostBytes: name)
    guard SafeName.single(text) == name else {
      throw .invalid("A snapshot of this name could not be shown")
    }
    try session.withChain { (chain) throws(EngineError) in
      guard let keeper = chain.top as? any SnapshotChanging else {
        throw .notPermitted("The format has no snapshots")
      }
      // What failed may have been done all the same.
      defer { session.noteShape() }
      try chain.changingWhole { () throws(EngineError) in
        _ = try keeper.createSnapshot(named: text, at: IdentitySource.unique.now)
      }
    }
  }

  private static func deleteSnapshot(_ node: Node, of session: ImageSession) throws(EngineError) {
    try session.snapshotHolds.deleting(node.token) { () throws(EngineError) in
      try session.withChain { (chain) throws(EngineError) in
        guard let keeper = chain.top as? any SnapshotChanging,
          let record = try record(of: node, in: keeper)
        else { throw .system(ENOENT) }
        defer { session.noteShape() }
        try chain.changingWhole { () throws(EngineError) in try keeper.deleteSnapshot(record) }
      }
    }
  }

  private static func record(of node: Node, in keeper: any SnapshotKeeping) throws(EngineError)
    -> SnapshotRecord?
  {
    let records = try keeper.shownSnapshots()
    let names = SafeName.unique(records.map(\.name))
    return zip(records, names).first { record, name in name == node.name && record.key == node.token }?.0
  }
}

/// What the folders of a file's snapshots have in common.
private final class SharedBySnapshots: Sendable {
  let session: ImageSession
  let depth: Int
  let descriptions: SnapshotDescriptions
  /// Those of the file.
  let extended: ExtendedAttributes

  init(session: ImageSession, depth: Int, extended: ExtendedAttributes) {
    self.session = session
    self.depth = depth
    self.extended = extended
    descriptions = SnapshotDescriptions(session, depth: depth)
  }
}

/// A snapshot that has a folder. All that the folder needs is made of this, when it is asked for: an image may have 65536
/// of them.
private final class ShownSnapshot: Sendable {
  let record: SnapshotRecord
  let shared: SharedBySnapshots

  init(_ record: SnapshotRecord, _ shared: SharedBySnapshots) {
    (self.record, self.shared) = (record, shared)
  }

  var view: DiskView {
    DiskView(
      session: shared.session, source: .snapshot(record, depth: shared.depth),
      listedByteCount: record.virtualSize)
  }

  var extended: ExtendedAttributes {
    ExtendedAttributes {
      self.allExtended.names()
    } value: { (name) throws(EngineError) in
      try self.allExtended.value(name)
    }
  }

  private var allExtended: ExtendedAttributes {
    shared.extended.with([
      (name: "virtual_size", value: String(record.virtualSize)), (name: "snapshot_id", value: record.id),
      (name: "snapshot_name", value: record.name),
    ])
  }
}
