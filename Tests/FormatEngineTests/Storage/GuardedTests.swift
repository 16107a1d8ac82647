import TestSupport
import Testing

@testable import FormatEngine

@Suite struct GuardedTests {
  @Test func oneThreadHasTheValueAtATime() {
    let guarded = Guarded((first: 0, second: 0))
    let complaints = Threads.run(8) { _ in
      for _ in 0..<20_000 {
        let isWhole = guarded.withLock { value in
          value.first += 1
          defer { value.second += 1 }
          return value.first == value.second + 1
        }
        if !isWhole { return "somebody else was inside" }
      }
      return nil
    }
    #expect(complaints == [])
    #expect(guarded.withLock { $0 } == (160_000, 160_000))
  }

  @Test func takenOneIsNotAvailable() {
    let guarded = Guarded(1)
    #expect(guarded.withLockIfAvailable { $0 } == 1)
    guarded.withLock { _ in
      let complaints = Threads.run(1) { _ in
        guarded.withLockIfAvailable { $0 } == nil ? nil : "it was available"
      }
      #expect(complaints == [])
    }
    #expect(guarded.withLockIfAvailable { $0 } == 1)
  }

  @Test func thrownErrorGivesItBack() {
    let guarded = Guarded(1)
    #expect(throws: EngineError.self) {
      try guarded.withLock { (value) throws(EngineError) in
        value = 2
        throw .invalid("no")
      }
    }
    #expect(guarded.withLock { $0 } == 2)
  }

  @Test func valueEndsWithIt() {
    final class Object: Sendable {}
    weak var seen: Object?
    do {
      let guarded = Guarded(Object())
      seen = guarded.withLock { $0 }
      #expect(seen != nil)
    }
    #expect(seen == nil)
  }
}
