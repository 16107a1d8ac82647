import TestSupport
import Testing

@testable import FormatEngine

/// In which order requests and flushes come, and where the requests lie.
@Suite struct RequestSequenceTests {
  private func options(_ count: Int, depth: Int, interval: Int? = nil, drains: Bool = true)
    -> BenchmarkOptions
  {
    var options = BenchmarkOptions()
    options.requestCount = count
    options.depth = depth
    options.flushing = interval.map { .init(interval: $0, drains: drains) }
    return options
  }

  /// What happened: the requests in the order in which they began, and the numbers of those before which a flush
  /// began. Requests end in random order.
  private struct History {
    var begun: [Int] = []
    var flushedBefore: [Int] = []
    var mostAtWork = 0
    var atWorkBesideFlush = 0
  }

  private func play(_ options: BenchmarkOptions, _ random: inout SeededRandom) throws -> History {
    var sequence = RequestSequence(options)
    var history = History()
    var (transfers, flushes) = (0, 0)
    for _ in 0..<100 * (options.requestCount + 10) {
      if sequence.isDone { return history }
      switch sequence.next() {
      case .transfer(let index):
        history.begun.append(index)
        transfers += 1
        history.mostAtWork = max(history.mostAtWork, transfers)
        if flushes > 0 { history.atWorkBesideFlush += 1 }
      case .flush:
        history.flushedBefore.append(history.begun.count)
        flushes += 1
        if transfers > 0 { history.atWorkBesideFlush += 1 }
      case .wait, .end:
        try #require(transfers + flushes > 0, "waits for nothing")
        if flushes > 0, transfers == 0 || random.oneIn(2) {
          sequence.finishFlush()
          flushes -= 1
        } else {
          sequence.finishTransfer()
          transfers -= 1
        }
      }
    }
    throw TestFailure("does not end")
  }

  @Test(arguments: [(0, 1), (1, 64), (64, 64), (1000, 7), (1000, 1)])
  func everyRequestComesOnceAndInOrder(count: Int, depth: Int) throws {
    var random = SeededRandom.fromEnvironment(or: 1)
    let history = try play(options(count, depth: depth), &random)
    #expect(history.begun == Array(0..<count))
    #expect(history.mostAtWork == min(count, depth))
    #expect(history.flushedBefore.isEmpty)
  }

  @Test(arguments: [true, false])
  func flushesComeWhereWhatRemainsIsAMultiple(drains: Bool) throws {
    var random = SeededRandom.fromEnvironment(or: 2)
    for (count, interval, expected) in [
      (20, 5, [5, 10, 15, 20]), (22, 5, [2, 7, 12, 17, 22]), (3, 5, [3]), (5, 5, [5]), (0, 5, []),
    ] {
      let history = try play(options(count, depth: 4, interval: interval, drains: drains), &random)
      #expect(history.begun == Array(0..<count))
      #expect(history.flushedBefore == expected)
    }
  }

  @Test func aDrainedFlushHasTheDiskForItself() throws {
    var random = SeededRandom.fromEnvironment(or: 3)
    let drained = try play(options(500, depth: 8, interval: 9), &random)
    #expect(drained.atWorkBesideFlush == 0)
    #expect(drained.mostAtWork == 8)
    let undrained = try play(options(500, depth: 8, interval: 9, drains: false), &random)
    #expect(undrained.atWorkBesideFlush > 0)
    #expect(undrained.mostAtWork == 8)
  }

  @Test func afterAStopNothingBeginsAndWhatIsAtWorkEnds() {
    var sequence = RequestSequence(options(100, depth: 3, interval: 5))
    for index in 0..<3 { #expect(sequence.next() == .transfer(index)) }
    #expect(sequence.next() == .wait)
    sequence.stop()
    #expect(sequence.next() == .end)
    for _ in 0..<3 {
      #expect(!sequence.isDone)
      sequence.finishTransfer()
    }
    #expect(sequence.isDone)
  }

  @Test func offsetsWrapAtTheEndOfTheDisk() {
    func offsets(_ offset: UInt64, step: UInt64, size: UInt64, count: Int = 6) -> [UInt64] {
      var options = BenchmarkOptions()
      (options.offset, options.step) = (offset, step)
      let places = RequestPlaces(options, virtualSize: size)
      return (0..<count).map(places.guestOffset)
    }
    #expect(offsets(0, step: 4096, size: 16384) == [0, 4096, 8192, 12288, 0, 4096])
    #expect(offsets(512, step: 5000, size: 8192) == [512, 5512, 2320, 7320, 4128, 936])
    #expect(offsets(0, step: 3 << 20, size: 1 << 20) == [0, 0, 0, 0, 0, 0])
    // The first one is not moved into the disk.
    #expect(offsets(8192, step: 512, size: 8192, count: 2) == [8192, 512])
    #expect(offsets(0, step: 4096, size: 0, count: 2) == [0, 0])
    // The largest numbers that there are.
    let places = { (options: BenchmarkOptions) in RequestPlaces(options, virtualSize: 1 << 62) }
    var options = BenchmarkOptions()
    options.offset = UInt64(Int64.max)
    options.step = UInt64(Int32.max)
    #expect(places(options).guestOffset(Int(Int32.max)) < 1 << 62)
  }
}
