/// Copies what lies above an image of a chain into that image.
public enum Committer {
  /// How deep the image that `name` means lies in a chain, nil where none below the top is meant.
  ///
  /// A name stands for a file as the image above it would name it: relative to that image's folder.
  public static func depth(of name: String, in chain: ImageChain) -> Int? {
    (1..<max(chain.members.count, 1)).first { depth in
      let overlay = chain.members[depth - 1]
      if overlay.layer.backing?.name == name { return true }
      guard !name.isEmpty, let plain = try? ImageName.plainPath(name),
        let identity = HostFiles.identity(of: ImageName.join(plain, toFolderOf: overlay.path))
      else { return false }
      return (chain.members[depth].file as? FileStore)?.identity == identity
    }
  }

  /// Makes `base`, the layers of `chain` from `depth` on, read as the whole chain does. A base that is too small
  /// grows; a longer one stays as long. On disk when it returns, and closed, also where it throws.
  public static func commit(
    _ chain: ImageChain, at depth: Int, into base: ImageChain, rateLimit: UInt64? = nil,
    progress: Progress = .none
  ) throws(EngineError) {
    let source = ImageChain(members: Array(chain.members[..<depth]))
    var options = ConvertOptions()
    options.scope = .upperLayers(count: depth)
    options.looksForZeros = false
    options.rateLimit = rateLimit
    do throws(EngineError) {
      if try changes(base, chain, at: depth) { try recordChange(of: base, at: depth, of: chain) }
      if base.virtualSize < chain.virtualSize { try base.resize(to: chain.virtualSize) }
      try Converter.convert(from: [source], to: base, options, progress: progress)
    } catch {
      // What was written reads the same in the layer above, too: that goes on.
      base.closeAfterFailure()
      try? recordState(of: base, at: depth, of: chain)
      throw error
    }
    do throws(EngineError) {
      try base.close()
    } catch {
      try? recordState(of: base, at: depth, of: chain)
      throw error
    }
    try recordState(of: base, at: depth, of: chain)
  }

  /// Whether there is anything to write: a base that stays as it is stays that for all that lie over it.
  private static func changes(_ base: ImageChain, _ chain: ImageChain, at depth: Int) throws(EngineError)
    -> Bool
  {
    guard depth == 1, chain.top is any ParentRecording, base.virtualSize >= chain.virtualSize else {
      return true
    }
    var offset: UInt64 = 0
    while offset < chain.virtualSize {
      let found = try chain.locate(at: offset, limit: chain.virtualSize - offset)
      if found.depth < depth { return true }
      offset += found.extent.length
    }
    return false
  }

  /// The base will not be any more what the layer above it was made over.
  private static func recordChange(of base: ImageChain, at depth: Int, of chain: ImageChain)
    throws(EngineError)
  {
    guard depth == 1, let layer = chain.top as? any ParentRecording else { return }
    try chain.changingWhole { () throws(EngineError) in try layer.recordChange(ofParent: base.top) }
  }

  /// The layer above the base was made over what that was until now.
  private static func recordState(of base: ImageChain, at depth: Int, of chain: ImageChain)
    throws(EngineError)
  {
    guard depth == 1, let layer = chain.top as? any ParentRecording else { return }
    try chain.changingWhole { () throws(EngineError) in
      try layer.recordState(ofParent: base.top)
      // The image stays locked: it may be emptied yet.
      try layer.close()
    }
  }

  /// Lets go of what the top stores, when the layer below has all of it.
  public static func empty(_ chain: ImageChain) throws(EngineError) {
    guard let layer = chain.top as? any Emptyable else { throw .unsupported("Operation not supported") }
    try chain.changingWhole { () throws(EngineError) in try layer.removeContent(progress: .none) }
    try chain.close()
  }
}
