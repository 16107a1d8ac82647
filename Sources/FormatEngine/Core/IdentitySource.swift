/// Where the ids and dates of images come from: from chance and the clock, or, so that two runs make the same files,
/// from one given moment and what the images are made of.
///
/// A derived id is a SHA-256 of all that was mixed in and of what the id is for. Keys and salts never come from here.
public struct IdentitySource: Sendable {
  /// Seconds since 1970-01-01 00:00 UTC; nil: chance and the clock.
  private let seconds: Int64?
  /// All that derived ids depend on, each part with its length before it.
  private var inputs: [UInt8] = []

  /// Ids that nothing else has, and the host's time.
  public static let unique = IdentitySource(seconds: nil)

  /// Everything is made at this moment, in seconds since 1970-01-01 00:00 UTC.
  public static func derived(fromSeconds seconds: Int64) -> IdentitySource {
    IdentitySource(seconds: seconds).mixing(String(seconds))
  }

  private init(seconds: Int64?) { self.seconds = seconds }

  public var isDerived: Bool { seconds != nil }

  /// When what is made now is made.
  public var now: SnapshotDate {
    seconds.map { SnapshotDate(seconds: $0, nanoseconds: 0) } ?? HostClock.now
  }

  /// The same, with ids that depend on these bytes, too.
  func mixing(_ bytes: [UInt8]) -> IdentitySource {
    guard isDerived else { return self }
    var source = self
    source.inputs.append(littleEndian: UInt64(bytes.count))
    source.inputs += bytes
    return source
  }

  func mixing(_ text: String) -> IdentitySource { mixing(Array(text.utf8)) }

  /// 16 bytes. `purpose` tells the ids of one image apart; `old` is the id whose place they take.
  func bytes(for purpose: String, after old: [UInt8] = []) throws(EngineError) -> [UInt8] {
    guard isDerived else {
      var generator = SystemRandomNumberGenerator()
      var bytes: [UInt8] = []
      for _ in 0..<2 { bytes.append(littleEndian: generator.next() as UInt64) }
      return bytes
    }
    return Array(try HashAlgorithm.sha256.digest(mixing(purpose).mixing(old).inputs).prefix(16))
  }

  func number(for purpose: String, after old: [UInt8] = []) throws(EngineError) -> UInt32 {
    try bytes(for: purpose, after: old).prefix(4).reduce(0) { $0 << 8 | UInt32($1) }
  }
}
