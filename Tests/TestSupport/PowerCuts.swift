/// What happened to files that lose their power together, and what a power cut would leave of them.
///
/// What was flushed is on disk. What was written to a file after its last flush may be there whole, in part (torn at a
/// sector boundary) or not at all, and no write waits for an earlier one.
public struct PowerCuts: Sendable {
  public struct Step: Sendable {
    /// Which of the files.
    public var file: Int
    public var event: FileEvent

    public init(file: Int, event: FileEvent) {
      self.file = file
      self.event = event
    }
  }

  /// The files on disk before the first step, nil for those that are made later.
  public var initial: [[UInt8]?]
  public var steps: [Step]

  public init(initial: [[UInt8]?], steps: [Step]) {
    self.initial = initial
    self.steps = steps
  }

  /// What a power cut may leave of all the files.
  public struct State: Sendable {
    /// Steps before this one happened.
    public var cut: Int
    /// For messages: which writes were kept.
    public var story: String
    public var files: [[UInt8]?]
  }

  /// The files on disk, as far as somebody has waited for that, at ever later cuts.
  private struct Durable {
    var files: [[UInt8]?]
    /// Steps of each file that wait for a flush.
    var pending: [[Int]]
    var stepCount = 0

    init(_ initial: [[UInt8]?]) {
      files = initial
      pending = initial.map { _ in [] }
    }

    mutating func advance(to cut: Int, _ steps: [Step]) {
      while stepCount < cut {
        let file = steps[stepCount].file
        if steps[stepCount].event.isFlush {
          for index in pending[file] { steps[index].event.apply(to: &files[file]) }
          pending[file] = []
        } else {
          pending[file].append(stepCount)
        }
        stepCount += 1
      }
    }
  }

  /// What there is without a power cut.
  public var filesAtEnd: [[UInt8]?] {
    var files = initial
    for step in steps { step.event.apply(to: &files[step.file]) }
    return files
  }

  /// Calls `body` with states that a power cut after `cut` steps may leave, for every cut in `cuts`: nothing unsynced is
  /// there; all of it; all but the last; only the last; and `randomCount` times a random choice in random order, with
  /// writes torn at 512 or 4096 bytes.
  public func forEachState(
    cuts: some Sequence<Int>, random: inout SeededRandom, randomCount: Int = 2, _ body: (State) throws -> Void
  ) rethrows {
    var durable = Durable(initial)
    var count = 0
    defer { Tally.add("power cuts", count) }
    for cut in cuts {
      if cut < durable.stepCount { durable = Durable(initial) }
      durable.advance(to: cut, steps)
      let pending = durable.pending.joined().sorted().map { steps[$0] }
      let files = durable.files

      func state(_ story: String, _ kept: [Step]) -> State {
        var files = files
        for step in kept { step.event.apply(to: &files[step.file]) }
        count += 1
        return State(cut: cut, story: "\(story) of \(pending.count) unsynced writes", files: files)
      }
      try body(state("none", []))
      guard let last = pending.last else { continue }
      try body(state("all", pending))
      if pending.count > 1 {
        try body(state("all but the last", Array(pending.dropLast())))
        try body(state("only the last", [last]))
      }
      for round in 0..<randomCount {
        try body(state("choice \(round)", Self.chosen(from: pending, &random)))
      }
    }
  }

  /// A random part of the writes, in random order, some torn.
  private static func chosen(from pending: [Step], _ random: inout SeededRandom) -> [Step] {
    let unit = random.oneIn(2) ? 512 : 4096
    var kept: [Step] = []
    for step in pending {
      switch random.below(4) {
      case 0: break
      case 1: kept.append(Step(file: step.file, event: step.event.torn(unit, &random)))
      default: kept.append(step)
      }
    }
    // Writes of one place keep their order: the page cache holds the newer one only.
    return reordered(kept, &random)
  }

  private static func reordered(_ steps: [Step], _ random: inout SeededRandom) -> [Step] {
    var result = steps
    guard result.count > 1 else { return result }
    for _ in 0..<result.count {
      let index = random.below(result.count - 1)
      if !overlap(result[index], result[index + 1]) { result.swapAt(index, index + 1) }
    }
    return result
  }

  private static func overlap(_ a: Step, _ b: Step) -> Bool {
    guard a.file == b.file else { return false }
    guard let a = a.event.place, let b = b.event.place else { return true }
    return a.overlaps(b)
  }
}
