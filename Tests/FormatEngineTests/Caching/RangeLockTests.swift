import Glibc
import Synchronization
import TestSupport
import Testing

@testable import FormatEngine

@Suite struct RangeLockTests {
  @Test func exclusiveHoldersOfAByteNeverOverlap() {
    let lock = RangeLock()
    let holders = Mutex<[Int]>(Array(repeating: 0, count: 64))
    let wrong = Threads.run(6) { number in
      var random = SeededRandom(seed: UInt64(number))
      for _ in 0..<400 {
        let start = random.below(60)
        let range = start..<start + 1 + random.below(4)
        let isExclusive = random.oneIn(2)
        var complaint: String?
        try? lock.withRange(UInt64(range.lowerBound)..<UInt64(range.upperBound), exclusive: isExclusive) {
          () throws(EngineError) in
          holders.withLock { list in
            for index in range {
              // A writer counts 1000, a reader 1.
              if list[index] >= 1000 || (isExclusive && list[index] != 0) {
                complaint = "byte \(index): \(list[index])"
              }
              list[index] += isExclusive ? 1000 : 1
            }
          }
          sched_yield()
          holders.withLock { list in for index in range { list[index] -= isExclusive ? 1000 : 1 } }
        }
        if let complaint { return complaint }
      }
      return nil
    }
    #expect(wrong.isEmpty)
    #expect(holders.withLock { $0.allSatisfy { $0 == 0 } })
  }

  @Test func failureInsideGivesTheRangeBack() throws {
    let lock = RangeLock()
    #expect(throws: EngineError.self) {
      try lock.withRange(0..<10, exclusive: true) { () throws(EngineError) in throw .invalid("on purpose") }
    }
    let inside = try Deadline.within(seconds: 5, "range lock") {
      try lock.withRange(5..<6, exclusive: true) { () throws(EngineError) in 3 }
    }
    #expect(inside == 3)
  }

  @Test func readersShareARange() throws {
    let lock = RangeLock()
    try Deadline.within(seconds: 5, "shared range") {
      let inner = try lock.withRange(0..<10, exclusive: false) { () throws(EngineError) in
        try lock.withRange(5..<6, exclusive: false) { () throws(EngineError) in 4 }
      }
      #expect(inner == 4)
    }
  }

  @Test func whatIsTakenIsNotTakenTwiceAndCanBeGivenBack() throws {
    let lock = RangeLock()
    #expect(lock.take(10..<20))
    #expect(!lock.take(19..<30))
    #expect(!lock.take(0..<11))
    #expect(lock.take(20..<30))
    lock.give(10..<20)
    #expect(lock.take(0..<20))
    let isTakenTwice = try lock.withRange(40..<50, exclusive: false) { () throws(EngineError) in
      lock.take(49..<60)
    }
    #expect(!isTakenTwice)
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
        do throws(EngineError) {
          try lock.withRange(50..<60, exclusive: true) { () throws(EngineError) in }
        } catch { return error.message }
      }
      return nil
    }
    #expect(complaints.isEmpty)
    #expect(lock.take(0..<100))
  }
}
