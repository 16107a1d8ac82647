/// From which files the host could copy by itself into one that is being written: who could not once is not asked again.
final class HostCopyResults: Sendable {
  private enum Answer {
    case works
    case refused
  }

  private let answers = Guarded<[HostFiles.Identity: Answer]>([:])

  /// Whether bytes of this file need not pass through memory any more.
  func works(from file: FileStore) -> Bool { answers.withLock { $0[file.identity] } == .works }

  /// The same of any file.
  var isWorking: Bool { answers.withLock { $0.values.contains(.works) } }

  func isRefused(from file: FileStore) -> Bool { answers.withLock { $0[file.identity] } == .refused }

  /// What `FileStore.copy` said of bytes of this file. Where it has worked before, it is these bytes alone that it could not copy.
  func note(_ file: FileStore, _ done: Range<UInt64>?) {
    if let done, done.isEmpty { return }
    answers.withLock { answers in
      if done != nil {
        answers[file.identity] = .works
      } else if answers[file.identity] == nil {
        answers[file.identity] = .refused
      }
    }
  }
}
