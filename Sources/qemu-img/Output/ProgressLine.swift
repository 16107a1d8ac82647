import FormatEngine
import Synchronization

/// The line that `-p` shows: `    (12.34/100%)`, written over itself.
final class ProgressLine: Sendable {
  private let isShown: Bool
  /// A smaller step than this, in percent, is not shown.
  private let step: Double
  private let last = Mutex<Double>(-100)

  init(isShown: Bool, step: Double) {
    self.isShown = isShown
    self.step = step
    show(0)
  }

  /// For the engine: `share` of the whole is its part, after `base` percent.
  func progress(from base: Double = 0, share: Double = 100) -> Progress {
    Progress(report: { [self] done, total in
      show(base + (total == 0 ? share : Double(done) / Double(total) * share))
    })
  }

  func show(_ percent: Double) {
    guard isShown else { return }
    let percent = min(percent, 100)
    last.withLock { last in
      guard percent > last + step || percent == 0 || percent == 100 else { return }
      last = percent
      Console.write("    (\(NumberText.fixed2(percent))/100%)\r")
      Console.flush()
    }
  }

  /// Leaves the line.
  func end() {
    if isShown { Console.write("\n") }
  }
}
