extension ImageOpener {
  /// The layers of an opened chain from `depth` on as a disk of its own that can be written: its file is opened
  /// once more, as it was before. `options` are those that the whole chain was opened with. Locks of the chain's files
  /// are no obstacle, and reach as far as both need.
  public static func reopenForWriting(
    _ chain: ImageChain, from depth: Int, _ options: OpenOptions
  ) throws(EngineError) -> ImageChain {
    let old = chain.members[depth]
    var use = NodeUse(options, access: .readWrite)
    use.locks.request.shared.remove(.resize)
    if chain.virtualSize > old.layer.virtualSize { use.locks.request.taken.insert(.resize) }
    use.locks.older = old.lockedFiles
    let top = try again(old, use, options)
    return ImageChain(members: top.over(chain.members[(depth + 1)...]), access: .readWrite)
  }

  /// A member of a chain that is read only, opened once more: its tables are taken from the file again. Who has the
  /// old one goes on holding its locks beside the new one's.
  static func reopen(_ old: ChainMember, _ options: OpenOptions) throws(EngineError) -> ChainMember {
    try again(old, NodeUse(options, access: .readOnly), options)
  }

  /// The file of a member as it was opened before; throws where another one has taken its place.
  private static func again(_ old: ChainMember, _ use: NodeUse, _ options: OpenOptions) throws(EngineError)
    -> ChainMember
  {
    guard let node = old.node else { throw .unsupported("'\(old.path)' cannot be opened once more") }
    var options = options
    options.cache = old.cache
    var use = use
    use.cache = old.cache
    use.wasProbed = old.isProbed
    var opener = NodeOpener(options)
    let new = try opener.file(node, use)
    guard old.hostFiles.map(\.identity) == new.hostFiles.map(\.identity) else {
      throw EngineError(.notFound, "'\(old.path)' is another file now", path: old.path)
    }
    return new
  }
}
