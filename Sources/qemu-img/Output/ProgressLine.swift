import FormatEngine
import Glibc
import Synchronization

/// Set by SIGUSR1, which asks a long command how far it is.
private let isAskedForProgress = Atomic<Bool>(false)

private func noteQuestion(_ signal: CInt) { isAskedForProgress.store(true, ordering: .relaxed) }

/// The line that `-p` shows: `    (12.34/100%)`, written over itself. Without `-p` it is shown, once and
/// on standard error, when the process gets SIGUSR1.
final class ProgressLine: Sendable {
  private let isShown: Bool
  /// A smaller step than this, in percent, is not shown.
  private let step: Double
  private let last = Mutex<Double>(-100)

  init(isShown: Bool, step: Double) {
    self.isShown = isShown
    self.step = step
    // Touched before the handler may run: nothing is set up inside of it.
    isAskedForProgress.store(false, ordering: .relaxed)
    signal(SIGUSR1, noteQuestion)
    show(0)
  }

  /// For the engine: `share` of the whole is its part, after `base` percent.
  func progress(from base: Double = 0, share: Double = 100) -> Progress {
    Progress(
      isWatched: isShown,
      report: { [self] done, total in
        show(base + (total == 0 ? share : Double(done) / Double(total) * share))
      })
  }

  func show(_ percent: Double) {
    let percent = min(percent, 100)
    let isAsked = isAskedForProgress.exchange(false, ordering: .relaxed)
    guard isShown else {
      if isAsked { Console.note("    (\(NumberText.fixed2(percent))/100%)") }
      return
    }
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
