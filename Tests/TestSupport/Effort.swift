import Foundation

/// How much work random tests do: IMGFS_TEST_EFFORT is `quick`, `all` (the default) or `soak`.
public enum Effort: String, Sendable {
  case quick
  case all
  case soak

  public static let current =
    ProcessInfo.processInfo.environment["IMGFS_TEST_EFFORT"].flatMap(Effort.init) ?? .all

  /// `count` rounds, fewer or many more.
  public static func rounds(_ count: Int) -> Int {
    switch current {
    case .quick: max(1, count / 4)
    case .all: count
    case .soak: count * 20
    }
  }
}
