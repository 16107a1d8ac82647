import FormatEngine
import Glibc
import Synchronization

/// The signal that asked the command to end, 0 where none did.
private let askingSignal = Atomic<CInt>(0)

/// The first one is noted, the second one ends the process at once.
private func noteSignal(_ number: CInt) {
  guard askingSignal.exchange(number, ordering: .relaxed) != 0 else { return }
  signal(number, SIG_DFL)
  raise(number)
}

/// Ctrl-C and its like, for commands that change an image in place: the work ends between two of its steps, the image is
/// closed as after any other error, and the process ends as by the signal. New images have nothing to be closed for then:
/// there the signal ends the process, as it does with qemu-img.
enum Interruption {
  /// From here on signals end the work, but for those that whoever started the process has it ignore.
  static func endsWork() {
    // Touched before the handler may run: nothing is set up inside of it.
    askingSignal.store(0, ordering: .relaxed)
    for number in [SIGINT, SIGTERM, SIGHUP] {
      var old = sigaction()
      guard unsafe sigaction(number, nil, &old) == 0 else { continue }
      // SAFETY: a handler without SA_SIGINFO; SIG_IGN is the number 1.
      guard unsafe unsafeBitCast(old.__sigaction_handler.sa_handler, to: Int.self) != 1 else { continue }
      signal(number, noteSignal)
    }
  }

  static var isAsked: Bool { askingSignal.load(ordering: .relaxed) != 0 }

  /// Runs work on an image. Where it fails, or a signal ends it, all that was done is on disk and the image is closed. But
  /// for one that goes into a pipe: without its end whoever is there can tell that something is missing.
  static func closing<T>(_ image: ImageChain, _ body: () throws(VerbFailure) -> T) throws(VerbFailure) -> T {
    do throws(VerbFailure) {
      return try body()
    } catch {
      if !image.members[0].file.isSequential { image.closeAfterFailure() }
      throw error
    }
  }

  /// Ends the process as the signal does that was noted.
  static func endProcess() {
    let number = askingSignal.load(ordering: .relaxed)
    guard number != 0 else { return }
    signal(number, SIG_DFL)
    raise(number)
  }
}
