extension ImageOpener {
  /// The layers of an opened chain from `depth` on as a disk of its own that can be written: its file is opened
  /// once more. `options` are those that the whole chain was opened with.
  public static func reopenForWriting(
    _ chain: ImageChain, from depth: Int, _ options: OpenOptions
  ) throws(EngineError) -> ImageChain {
    let old = chain.members[depth]
    let file = try FileStore.open(old.path, access: .readWrite, flushing: options.flushing)
    guard (old.file as? FileStore)?.identity == file.identity else {
      throw EngineError(.notFound, "'\(old.path)' is another file now", path: old.path)
    }
    let top = try member(file, path: old.path, format: old.formatName, .readWrite, options)
    let members = [top] + chain.members[(depth + 1)...]
    return ImageChain(members: members, access: .readWrite)
  }
}
