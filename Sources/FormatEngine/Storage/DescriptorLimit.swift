import Glibc

/// How many files the process may have open at a time.
public enum DescriptorLimit {
  /// What holds now.
  static var current: Int {
    var limit = rlimit()
    guard unsafe getrlimit(kind, &limit) == 0 else { return fallback }
    return Int(clamping: limit.rlim_cur)
  }

  /// As many as the host allows. For programs, when they start: the small limit that they get is for those that use
  /// select(2).
  public static func raise() {
    var limit = rlimit()
    guard unsafe getrlimit(kind, &limit) == 0, limit.rlim_cur < limit.rlim_max else { return }
    limit.rlim_cur = limit.rlim_max
    _ = unsafe setrlimit(kind, &limit)
  }

  /// What a process usually has.
  private static let fallback = 1024
  private static let kind = CInt(RLIMIT_NOFILE.rawValue)
}
