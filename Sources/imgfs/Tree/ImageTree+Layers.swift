import FormatEngine

extension ImageTree {
  /// A folder for each file of the chain.
  func layerNodes(_ place: Place) throws(EngineError) -> [Node] {
    let members = try session.withChain { (chain) throws(EngineError) in chain.members }
    // When the chain is another, so are the bytes of its lower layers.
    let token = String(session.chainNumber)
    return members.indices.map { depth in
      let name = SafeName.single("\(depth)-" + ImageName.lastComponent(of: members[depth].path))
      if let missing = members[depth].missing {
        return folderNode(name, token: token, place, time: place.time) { place in
          [self.errorNode(missing.reason, place)]
        }
      }
      return folderNode(
        name, token: token, place, time: Self.time(of: members[depth]), followsChanges: depth == 0,
        extended: attributes(ofLayerAt: depth)
      ) { (place) throws(EngineError) in
        try self.nodes(ofLayerAt: depth, place)
      }
    }
  }

  private func nodes(ofLayerAt depth: Int, _ place: Place) throws(EngineError) -> [Node] {
    let size = try session.withChain { (chain) throws(EngineError) in chain.members[depth].layer.virtualSize }
    func view(onlyStored: Bool) -> DiskView {
      DiskView(
        session: session, source: .layer(depth: depth, onlyStored: onlyStored), listedByteCount: size)
    }
    // The file on top changes its size with the disk.
    let token = depth == 0 ? String(size) : ""
    return [
      diskNode("disk.raw", view(onlyStored: false), place, token: token, attributes(ofLayerAt: depth)),
      diskNode("delta.raw", view(onlyStored: true), place, token: token, attributes(ofLayerAt: depth)),
      textNode("info.json", place, isLive: depth == 0 && isWritable) { (chain) throws(EngineError) in
        try Description.info(of: chain.members[depth])
      },
      partitionsNode(view(onlyStored: false), place, token: token),
      snapshotsNode(ofLayerAt: depth, place, mayChange: false),
    ]
  }

  private static let foundNames = ["format", "virtual_size", "allocated_size", "layers", "encrypted"]

  /// What `getfattr` shows of a file of the chain and of its disk. Of an image that could not be opened only that is named
  /// which is known without it.
  func attributes(ofLayerAt depth: Int) -> ExtendedAttributes {
    let session = session
    var known = [(name: "depth", value: String(depth))]
    if session.access.isShared { known.append((name: "stale", value: "maybe")) }
    let found = ExtendedAttributes {
      self.hasFailed ? [] : Self.foundNames
    } value: { (name) throws(EngineError) in
      guard Self.foundNames.contains(name) else { return nil }
      return try session.withChain { (chain) throws(EngineError) in
        let info = try ImageInfo.of(chain.members[depth])
        return switch name {
        case "format": info.format
        case "virtual_size": String(info.virtualSize)
        case "allocated_size": info.actualSize.map { String($0) }
        case "layers": String(chain.members.count)
        case "encrypted": info.isEncrypted ? "yes" : "no"
        default: nil
        }
      }
    }
    return found.with(known)
  }
}
