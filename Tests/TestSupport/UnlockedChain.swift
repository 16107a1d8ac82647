public import FormatEngine

extension ImageChain {
  /// The same chain without locks: others may look at its files while it is open.
  public func unlocked() -> ImageChain {
    for member in members { (member.file as? FileStore)?.unlock() }
    return self
  }
}
