extension ByteStore {
  /// Gives the file another length, what is added set aside on the host as `preallocation` says. Where that fails the
  /// file has its old length.
  func setByteCount(_ new: UInt64, from old: UInt64, _ preallocation: Preallocation) throws(EngineError) {
    guard preallocation != .metadata else {
      throw .invalid("Unsupported preallocation mode: \(preallocation.rawValue)")
    }
    if new != old { try resize(to: new) }
    guard preallocation != .off, new > old else { return }
    do throws(EngineError) {
      try (self as? FileStore)?.reserve(at: old, count: new - old)
    } catch {
      try? resize(to: old)
      throw error
    }
  }
}
