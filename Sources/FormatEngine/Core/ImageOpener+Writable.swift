extension ImageOpener {
  /// The layers of an opened chain from `depth` on as a disk of its own that can be written: its file is opened
  /// once more, as it was before. `options` are those that the whole chain was opened with.
  public static func reopenForWriting(
    _ chain: ImageChain, from depth: Int, _ options: OpenOptions
  ) throws(EngineError) -> ImageChain {
    let old = chain.members[depth]
    let file = try FileStore.open(old.path, access: .readWrite, flushing: options.flushing)
    guard (old.file as? FileStore)?.identity == file.identity else {
      throw EngineError(.notFound, "'\(old.path)' is another file now", path: old.path)
    }
    guard var request = old.request, let format = FormatCatalog.format(named: old.formatName) else {
      throw .unsupported("'\(old.path)' cannot be opened once more, for writing")
    }
    request.access = .readWrite
    let top = ChainMember(
      layer: try format.open(file, request), file: file, path: old.path, nodeName: old.nodeName,
      formatName: old.formatName, request: request)
    let members = [top] + chain.members[(depth + 1)...]
    return ImageChain(members: members, access: .readWrite)
  }
}
