extension ImageOpener {
  /// The layers of an opened chain from `depth` on as a disk of its own that can be written: the first of them is
  /// opened once more, as it was before. `options` are those that the whole chain was opened with.
  public static func reopenForWriting(
    _ chain: ImageChain, from depth: Int, _ options: OpenOptions
  ) throws(EngineError) -> ImageChain {
    let old = chain.members[depth]
    guard let node = old.node else {
      throw .unsupported("'\(old.path)' cannot be opened once more, for writing")
    }
    var opener = NodeOpener(options)
    let top = try opener.top(node, access: .readWrite)
    if let file = top.file as? FileStore, let before = old.file as? FileStore {
      guard file.identity == before.identity else {
        throw EngineError(.notFound, "'\(old.path)' is another file now", path: old.path)
      }
    }
    return ImageChain(members: [top] + chain.members[(depth + 1)...], access: .readWrite)
  }
}
