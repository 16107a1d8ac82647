import FormatEngine
import Foundation

/// Real threads, for tests of what happens beside each other.
public enum Threads {
  /// Runs `body` in `count` threads and waits for all; gives what they had to complain about.
  public static func run(_ count: Int, _ body: @escaping @Sendable (_ number: Int) -> String?) -> [String] {
    let complaints = Complaints()
    let group = DispatchGroup()
    for number in 0..<count {
      group.enter()
      let thread = Thread {
        if let complaint = body(number) { complaints.all.withLock { $0.append(complaint) } }
        group.leave()
      }
      thread.stackSize = 1 << 20
      thread.start()
    }
    group.wait()
    return complaints.all.withLock { $0 }
  }

  /// Does two things beside each other, and gives what both gave: ours and the judge's, mostly.
  public static func both<A: Sendable, B: Sendable>(
    _ first: () throws -> A, _ second: @escaping @Sendable () throws -> B
  ) throws -> (A, B) {
    let other = Outcome<B>()
    let thread = TestThread { other.result.withLock { $0 = Result { try second() } } }
    let mine = Result { try first() }
    thread.join()
    guard let theirs = other.result.withLock({ $0 }) else {
      throw TestFailure("The second thing was not done")
    }
    return (try mine.get(), try theirs.get())
  }

  /// Lets others run for a while.
  public static func pause(microseconds: Int) { Thread.sleep(forTimeInterval: Double(microseconds) / 1e6) }

  private final class Outcome<T: Sendable>: Sendable {
    let result = Guarded<Result<T, any Error>?>(nil)
  }

  private final class Complaints: Sendable {
    let all = Guarded<[String]>([])
  }
}

/// One thread beside the test's own.
public final class TestThread: Sendable {
  private let group = DispatchGroup()

  public init(_ body: @escaping @Sendable () -> Void) {
    group.enter()
    let thread = Thread { [group] in
      body()
      group.leave()
    }
    thread.start()
  }

  public func join() { group.wait() }
}
