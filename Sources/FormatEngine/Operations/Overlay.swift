/// An image of its own that takes all writes to a disk, which itself stays as it is.
///
/// The disk may be of any format, encrypted, a snapshot: it is only read. What the overlay takes is not encrypted.
public final class Overlay: Sendable {
  /// Where an overlay's bytes go.
  public enum Place: Sendable, Equatable {
    /// Into a file without a name in this folder, which is gone when the overlay is no longer open, however that comes
    /// to be.
    case temporary(inFolder: String)
    /// Into this file: a new one, or the overlay of the same image that was made before.
    case kept(String)
  }

  /// What the image below was opened with.
  private let options: OpenOptions
  private let state: Guarded<State>

  private struct State {
    var chain: ImageChain
    /// The image, as it was open before a commit after which it could not be opened again; its place in the chain is
    /// that of a file that is missing.
    var lost: ChainMember?
  }

  /// The disk to read and write: the overlay, and below it the members of the image. After `commit`, however that ends,
  /// it is another one.
  public var chain: ImageChain { state.withLock { $0.chain } }

  /// `image` was opened with `options`, for reading only.
  public init(over image: ImageChain, _ options: OpenOptions, at place: Place) throws(EngineError) {
    var later = options
    // Whoever waits for this opening does not wait for those of a commit.
    later.progress = .none
    self.options = later
    let top: ChainMember
    switch place {
    case .temporary(let folder): top = try Self.temporary(over: image, inFolder: folder)
    case .kept(let path): top = try Self.kept(over: image, at: path, options)
    }
    state = Guarded(State(chain: ImageChain(members: [top] + image.members, access: .readWrite)))
  }

  /// Writes what the overlay holds into the image below it, which grows with it, and empties the overlay. On disk when it
  /// returns; the other members' locks are held all the time.
  ///
  /// The caller sees to it that nobody uses any part of `chain` meanwhile, and takes the new `chain` afterwards, also
  /// where this throws: then the overlay still holds everything, and the disk reads as before - but where the image could
  /// not be opened again what the overlay does not hold cannot be read until another commit opens it. A crash at any
  /// moment leaves an overlay that is kept as it was, over an image that may hold a part of it already.
  public func commit(progress: Progress = .none) throws(EngineError) {
    // Nobody holds what is lost, and its locks, once it is open again.
    let isLost = state.withLock { $0.lost != nil }
    let old = isLost ? try renewBase(of: chain) : chain
    if let missing = old.members[1].missing { throw missing.reason }
    guard old.members[1].node != nil else {
      throw .unsupported("The overlay lies over a snapshot, which nobody writes to")
    }
    // They lie over the image, too.
    if let keeper = old.top as? any SnapshotKeeping, try !keeper.shownSnapshots().isEmpty {
      throw .unsupported("The overlay has snapshots, which would change with the image below them")
    }
    let base = try ImageOpener.reopenForWriting(old, from: 1, options)
    guard base.isWritable else {
      throw .unsupported("The format '\(old.members[1].formatName)' cannot be written")
    }
    do throws(EngineError) {
      try flush(old, before: base)
      try Committer.commit(old, at: 1, into: base, progress: progress)
    } catch {
      // The first error is the one to tell.
      _ = try? renewBase(of: old)
      throw error
    }
    try removeContent(of: try renewBase(of: old))
  }

  /// Where it fails nothing is written to `base`.
  private func flush(_ old: ImageChain, before base: ImageChain) throws(EngineError) {
    do throws(EngineError) {
      try old.flush()
    } catch {
      try? base.close()
      throw error
    }
  }

  /// Takes the tables of the image below from its file again: others than before may be there. Throws where that cannot be
  /// opened; what is read of it is an error from then on.
  private func renewBase(of old: ImageChain) throws(EngineError) -> ImageChain {
    let image = state.withLock { $0.lost } ?? old.members[1]
    do throws(EngineError) {
      return replaceBase(of: old, by: try ImageOpener.reopen(image, options), lost: nil)
    } catch {
      let error = error.whileTrying("Could not open '\(image.path)' again after a commit")
      // The old tables may lead to what is something else now.
      let missing = ChainMember(MissingImage(image, error), below: old.members[0])
      _ = replaceBase(of: old, by: missing, lost: image)
      throw error
    }
  }

  private func replaceBase(of old: ImageChain, by member: ChainMember, lost: ChainMember?) -> ImageChain {
    let new = ImageChain(members: [old.members[0]] + member.over(old.members[2...]), access: .readWrite)
    state.withLock { $0 = State(chain: new, lost: lost) }
    return new
  }

  /// The image below has it all, on disk.
  private func removeContent(of chain: ImageChain) throws(EngineError) {
    guard let layer = chain.top as? any Emptyable else { return }
    try chain.changingWhole { () throws(EngineError) in try layer.removeContent(progress: .none) }
    try chain.flush()
  }
}
