import FormatEngine

/// How much processor time a look at a file may take: whoever waits for the answer cannot be interrupted, not even
/// killed, and a stranger's image may have tables to walk through for years. A slow disk is waited for.
struct Patience {
  /// For a number that may be guessed.
  static let forEstimate = 0.25
  /// For an answer that can be given without looking at everything, and for a text that is written, or not there.
  static let forAnswer = 20.0

  /// Questions between two looks at the clock, which is a call of the system.
  private static let stride: UInt = 4

  private let end: Double
  private var count: UInt = 0
  private var hasEnded = false

  /// `seconds` of the calling thread, from now on.
  init(seconds: Double) { end = HostClock.threadSeconds + seconds }

  /// Whether it is at its end; asked before each step, by the same thread.
  mutating func isOver() -> Bool {
    if !hasEnded && count % Self.stride == 0 { hasEnded = HostClock.threadSeconds >= end }
    count &+= 1
    return hasEnded
  }
}
