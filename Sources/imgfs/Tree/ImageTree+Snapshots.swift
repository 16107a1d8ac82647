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
      let records = try layer.snapshots()
      let descriptions = SnapshotDescriptions(session, depth: depth)
      return zip(records, SafeName.unique(records.map(\.name))).map { record, name in
        self.snapshotNode(record, name, descriptions, at: depth, place)
      }
    }
  }

  private func snapshotNode(
    _ record: SnapshotRecord, _ name: [UInt8], _ descriptions: SnapshotDescriptions, at depth: Int,
    _ place: Place
  ) -> Node {
    let time = FileTime(
      seconds: record.dateSeconds, nanoseconds: Int64(min(record.dateNanoseconds, 999_999_999)))
    let view = DiskView(
      session: session, source: .snapshot(record, depth: depth), listedByteCount: record.virtualSize)
    let extended = attributes(of: record, atDepth: depth)
    return folderNode(name, token: record.key, place, time: time, extended: extended) { place in
      [
        self.diskNode("disk.raw", view, place, extended),
        self.textNode("info.json", place) { (chain) throws(EngineError) in
          try descriptions.info(of: record, chain)
        },
        self.partitionsNode(view, place),
      ]
    }
  }

  private func attributes(of record: SnapshotRecord, atDepth depth: Int) -> ExtendedAttributes {
    attributes(ofLayerAt: depth).with([
      (name: "virtual_size", value: String(record.virtualSize)), (name: "snapshot_id", value: record.id),
      (name: "snapshot_name", value: record.name),
    ])
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
      try chain.changingWhole { () throws(EngineError) in
        _ = try keeper.createSnapshot(named: text, at: IdentitySource.unique.now)
      }
    }
    session.noteShape()
  }

  private static func deleteSnapshot(_ node: Node, of session: ImageSession) throws(EngineError) {
    try session.snapshotHolds.deleting(node.token) { () throws(EngineError) in
      try session.withChain { (chain) throws(EngineError) in
        guard let keeper = chain.top as? any SnapshotChanging,
          let record = try keeper.snapshots().first(where: { $0.key == node.token })
        else { throw .system(ENOENT) }
        try chain.changingWhole { () throws(EngineError) in try keeper.deleteSnapshot(record) }
      }
    }
    session.noteShape()
  }
}
