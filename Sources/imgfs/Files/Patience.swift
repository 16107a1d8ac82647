import FormatEngine

/// How long a look at a file may take: whoever waits for the answer cannot be interrupted, not even killed, and a
/// stranger's image may have tables to walk through for years.
struct Patience {
  /// For a number that may be guessed.
  static let forEstimate = 0.25
  /// For an answer that can be given without looking at everything.
  static let forAnswer = 2.0
  /// For a text that is written, or not there.
  static let forText = 20.0

  private let end: Double

  init(seconds: Double) { end = HostClock.steadySeconds + seconds }

  /// Whether it is at its end.
  var isOver: Bool { HostClock.steadySeconds >= end }
}
