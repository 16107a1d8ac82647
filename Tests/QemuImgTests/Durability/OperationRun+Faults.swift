import Glibc
import TestSupport
import Testing

/// System calls fail, or do a part only, while the command is at work.
extension OperationRun {
  /// A way in which calls fail.
  private struct Manner {
    var errno: CInt
    var kinds: [HostCalls.Kind]
    var isForEver: Bool
  }

  private static let manners = [false, true].flatMap { isForEver in
    [
      Manner(errno: EIO, kinds: HostCalls.Kind.allCases, isForEver: isForEver),
      // The calls for which room is needed; a flush, too, where a file system puts that off.
      Manner(
        errno: ENOSPC, kinds: [.create, .write, .copy, .allocate, .truncate, .flush], isForEver: isForEver),
    ]
  }

  /// Numbers of calls to fail of so many: all of them, or some.
  private static func numbers(of count: Int, _ random: inout SeededRandom) -> [Int] {
    if Effort.current == .soak { return Array(0..<count) }
    return count == 0 ? [] : (0..<Effort.rounds(1)).map { _ in random.below(count) }
  }

  /// Calls fail: the command tells it, the images stay sound, and the same command works afterwards.
  func failCalls(_ random: inout SeededRandom) throws {
    #expect(outcome.calls.count > 2)
    var count = 0
    for (index, manner) in Self.manners.enumerated() {
      // Each row has its own two.
      if Effort.current != .soak, index % 2 != row.name.utf8.count % 2 { continue }
      let callCount = outcome.calls.count { manner.kinds.contains($0.kind) }
      for number in Self.numbers(of: callCount, &random) {
        let fault = HostCalls.Fault(
          number: number, errno: manner.errno, kinds: manner.kinds, isForEver: manner.isForEver,
          isTorn: random.oneIn(2))
        try fail(fault, isJudged: random.oneIn(8), &random)
        count += 1
      }
    }
    Tally.add("faults", count)
  }

  private func fail(_ fault: HostCalls.Fault, isJudged: Bool, _ random: inout SeededRandom) throws {
    try reset()
    let outcome = try calls.run(.qemuImg, row.command, fault: fault)
    let result = outcome.result
    let failed = outcome.calls.filter(\.hasFailed)
    let story = "\(fault): \(failed.first?.description ?? "none was made")"
    #expect(result.status < 128 && !result.timedOut, "\(row.name), \(story): \(result.stderrText)")
    if result.status == 0 {
      // It has found another way, or did not need it.
      try expectSound(isFinished: true, isJudged: isJudged, "ended well; \(story)")
    } else {
      let words = result.stderrText.split(separator: "\n")
      #expect(
        words.contains { $0.hasPrefix("qemu-img: ") }, "\(row.name), \(story): '\(result.stderrText)'")
      let left = try filesNow()
      try expectSound(isFinished: false, isJudged: isJudged, story)
      if failed.contains(where: { $0.kind == .flush }) { try cutPower(after: outcome, story, &random) }
      try put(left)
    }
    try expectWorksAgain(isJudged: isJudged, story)
  }

  /// Short transfers and interrupted calls change nothing.
  func disturbCalls(_ random: inout SeededRandom) throws {
    // Of every second command, where time is short.
    let count = Effort.current == .soak || random.oneIn(2) ? Effort.rounds(1) : 0
    for _ in 0..<count {
      let seed = random.next()
      try reset()
      let result = try calls.run(.qemuImg, row.command, disturbing: seed).result
      #expect(
        result.status == 0 && result.stderr == outcome.result.stderr,
        "\(row.name), disturbed by \(seed): \(result.status), \(result.stderrText)")
      if result.status == 0 {
        try expectSound(isFinished: true, isJudged: false, "disturbed by \(seed)")
      }
    }
    Tally.add("disturbed runs", count)
  }
}
