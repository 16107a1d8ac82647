extension ByteStore {
  /// Gives the file another length, what is added set aside on the host as `preallocation` says. Where that fails the
  /// file has its old length.
  func setByteCount(
    _ new: UInt64, from old: UInt64, _ preallocation: Preallocation, _ progress: Progress = .none
  ) throws(EngineError) {
    guard preallocation != .metadata else {
      throw .invalid("Unsupported preallocation mode: \(preallocation.rawValue)")
    }
    if new != old { try resize(to: new) }
    guard new > old else { return }
    do throws(EngineError) {
      try setAside(at: old, count: new - old, preallocation, progress)
    } catch {
      try? resize(to: old)
      throw error
    }
  }

  /// Sets room aside on the host for bytes that read as zeros, as `preallocation` says.
  func setAside(
    at offset: UInt64, count: UInt64, _ preallocation: Preallocation, _ progress: Progress = .none
  ) throws(EngineError) {
    guard preallocation == .falloc || preallocation == .full else { return }
    // A full disk is known before the first zero is written, and the file lies in one piece.
    try (self as? FileStore)?.reserve(at: offset, count: count)
    if preallocation == .full { try writeZeroBytes(at: offset, count: count, progress) }
  }

  /// Zeros as any other bytes, where `writeZeros` may only say that there are some.
  func writeZeroBytes(at offset: UInt64, count: UInt64, _ progress: Progress = .none) throws(EngineError) {
    let zeros = [UInt8](repeating: 0, count: Int(min(count, MiB)))
    var done: UInt64 = 0
    while done < count {
      try progress.proceed()
      let piece = min(count - done, UInt64(zeros.count))
      try write(
        bytes: piece == UInt64(zeros.count) ? zeros : Array(zeros.prefix(Int(piece))), at: offset + done)
      done += piece
    }
  }
}
