import TestSupport

/// The power fails while the command is at work.
extension OperationRun {
  /// The command ran once, with its changes and flushes recorded. All that a power cut could have left is put into the
  /// folder, one after the other.
  func cutPower(_ random: inout SeededRandom) throws {
    try expectRecordIsWhole()
    let (names, cuts) = history(of: outcome)
    let seed = "\(random)"
    let isSoak = Effort.current == .soak
    let step = isSoak ? 1 : max(1, cuts.steps.count / Effort.rounds(4))
    let places = Array(stride(from: 1 + random.below(step), to: cuts.steps.count, by: step))
    // The end: what the command said it has done.
    let end = cuts.steps.count
    var (count, judged) = (0, 0)
    try cuts.forEachState(cuts: places + [end], random: &random, randomCount: isSoak ? 4 : 1) { state in
      if state.cut == end && !row.isDurable { return }
      try put(names, state.files)
      count += 1
      // The judge looks at some.
      let isJudged = count % (isSoak ? 8 : 16) == 0
      if isJudged { judged += 1 }
      try expectSound(
        isFinished: state.cut == end, isJudged: isJudged,
        "cut after \(state.cut) of \(end), \(state.story), \(seed)")
    }
    Tally.add("power cuts seen by the judge", judged)
  }

  /// What a flush could not bring to disk may be lost.
  func cutPower(after outcome: HostCalls.Outcome, _ story: String, _ random: inout SeededRandom) throws {
    let (names, cuts) = history(of: outcome)
    try cuts.forEachState(cuts: [cuts.steps.count], random: &random) { state in
      try put(names, state.files)
      try expectSound(isFinished: false, isJudged: false, "\(story), then a power cut, \(state.story)")
    }
  }
}
