import FormatEngine
import Glibc
import Synchronization

/// Set by SIGUSR1, which asks a long command how far it is.
private let isAskedForProgress = Atomic<Bool>(false)

private func noteQuestion(_ signal: CInt) { isAskedForProgress.store(true, ordering: .relaxed) }

/// The line that `-p` shows: `    (12.34/100%)`, written over itself. Without `-p` it is shown, once and
/// on standard error, when the process gets SIGUSR1. Where the image goes to standard output, the line does not.
final class ProgressLine: Sendable {
  private let isShown: Bool
  private let isOnErrors: Bool
  /// A smaller step than this, in percent, is not shown.
  private let step: Double
  private let last = Guarded<Double>(-100)

  /// `target`: the image that is written.
  init(isShown: Bool, step: Double, target: ImageSpecification? = nil) {
    self.isShown = isShown
    isOnErrors = target.map(Console.isStandardOutput) ?? false
    self.step = step
    // Touched before the handler may run: nothing is set up inside of it.
    isAskedForProgress.store(false, ordering: .relaxed)
    signal(SIGUSR1, noteQuestion)
  }

  /// For the engine: `share` of the whole is its part, after `base` percent.
  func progress(from base: Double = 0, share: Double = 100) -> Progress {
    Progress(
      isWatched: isShown,
      report: { [self] done, total in
        show(base + (total == 0 ? share : Double(done) / Double(total) * share))
      },
      isCancelled: { Interruption.isAsked })
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
      write("    (\(NumberText.fixed2(percent))/100%)\r")
    }
  }

  /// Leaves the line.
  func end() {
    if isShown { write("\n") }
  }

  private func write(_ text: String) {
    guard !isOnErrors else { return Console.writeToErrors(text) }
    Console.write(text)
    Console.flush()
  }
}
