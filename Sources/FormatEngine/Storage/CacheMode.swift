/// How far a write has come when it returns, and what a flush adds: the cache modes of `-t` and `-T`.
public struct CacheMode: Sendable, Equatable {
  /// Past the host's page cache (O_DIRECT).
  public var isDirect = false
  /// Every write is on disk when it returns (O_DSYNC, and the tables that lead to guest bytes with them).
  public var writesThrough = false
  /// A flush waits for nothing: for new images, which are thrown away when their making fails.
  public var skipsFlushes = false

  /// Writes may wait in the host's cache until a flush.
  public static let writeback = CacheMode()
  public static let writethrough = CacheMode(writesThrough: true)
  /// The mode that commands call `none`.
  public static let direct = CacheMode(isDirect: true)
  public static let directsync = CacheMode(isDirect: true, writesThrough: true)
  /// The mode that commands call `unsafe`.
  public static let unflushed = CacheMode(skipsFlushes: true)

  /// The mode that a command line calls `name`, nil where there is none.
  public static func named(_ name: String) -> CacheMode? {
    switch name {
    case "writeback": .writeback
    case "writethrough": .writethrough
    case "none", "off": .direct
    case "directsync": .directsync
    case "unsafe": .unflushed
    default: nil
    }
  }
}
