/// From which files the host could copy by itself into one that is being written: who could not once is not asked again.
final class HostCopyResults: Sendable {
  private enum Answer {
    case works
    case refused
  }

  private let answers = Guarded<[HostFiles.Identity: Answer]>([:])

  /// Whether bytes of this file need not pass through memory any more.
  func works(from file: FileStore) -> Bool { answers.withLock { $0[file.identity] } == .works }

  func isRefused(from file: FileStore) -> Bool { answers.withLock { $0[file.identity] } == .refused }

  /// Of `count` bytes at `place` those of `done` were copied. Where it has worked before, it may be these bytes alone that could
  /// not be: they end past the file, or in the middle of a block.
  func note(_ place: HostPlace, _ done: Range<UInt64>, of count: Int) {
    answers.withLock { answers in
      if !done.isEmpty {
        answers[place.file.identity] = .works
      } else if answers[place.file.identity] == nil, UInt64(count) >= 2 * FileStore.sharedUnit {
        answers[place.file.identity] = .refused
      }
    }
  }
}
