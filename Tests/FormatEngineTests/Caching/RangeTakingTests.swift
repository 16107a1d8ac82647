import TestSupport
import Testing

@testable import FormatEngine

/// Ranges that somebody takes without waiting, and gives back later.
@Suite struct RangeTakingTests {
  @Test func whatIsTakenIsNotTakenTwiceAndCanBeGivenBack() throws {
    let lock = RangeLock()
    #expect(lock.take(10..<20))
    #expect(!lock.take(19..<30))
    #expect(!lock.take(0..<11))
    #expect(lock.take(20..<30))
    lock.give(10..<20)
    #expect(lock.take(0..<20))
    try lock.withRange(40..<50, exclusive: false) { #expect(!lock.take(49..<60)) }
    #expect(lock.take(40..<60))
  }

  /// Whoever waits goes on when what was taken is given back.
  @Test func waitersGoOnAfterAGive() {
    let lock = RangeLock()
    #expect(lock.take(0..<100))
    let complaints = Threads.run(2) { number in
      if number == 0 {
        Threads.pause(microseconds: 20_000)
        lock.give(0..<100)
      } else {
        do { try lock.withRange(50..<60, exclusive: true) {} } catch { return "\(error)" }
      }
      return nil
    }
    #expect(complaints.isEmpty)
    #expect(lock.take(0..<100))
  }
}
