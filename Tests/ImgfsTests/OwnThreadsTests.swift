import Glibc
import Synchronization
import Testing

@testable import imgfs

@Suite struct OwnThreadsTests {
  private final class Steps: Sendable { let count = Atomic<Int>(0) }

  @Test func endWaitsForAllAndStartsNoMore() {
    let threads = OwnThreads()
    let steps = Steps()
    for _ in 0..<4 {
      let isStarted = threads.run {
        usleep(50_000)
        steps.count.add(1, ordering: .sequentiallyConsistent)
      }
      #expect(isStarted)
    }
    threads.finish()
    #expect(steps.count.load(ordering: .sequentiallyConsistent) == 4)
    #expect(!threads.run { steps.count.add(1, ordering: .sequentiallyConsistent) })
    threads.finish()
    #expect(steps.count.load(ordering: .sequentiallyConsistent) == 4)
  }
}
