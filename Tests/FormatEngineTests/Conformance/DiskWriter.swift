import FormatEngine
import TestSupport
import Testing

/// Changes an image and its model alike, at random.
struct DiskWriter {
  var model: ModelDisk
  var below: ModelDisk?
  var random: SeededRandom
  /// Bytes of the image's cluster, for the shapes of the changes.
  var unit: Int
  /// Ranges that were changed, one for each step.
  private(set) var touched: [Range<Int>] = []

  init(_ fixture: Fixture, seed: UInt64, unit: UInt64) {
    model = fixture.model
    below = fixture.below
    random = SeededRandom.fromEnvironment(or: seed)
    self.unit = max(Int(unit), 4096)
  }

  enum Step: CustomStringConvertible {
    case write(Range<Int>, [UInt8])
    case zeros(Range<Int>)
    case discard(Range<Int>)

    var range: Range<Int> {
      switch self {
      case .write(let range, _), .zeros(let range), .discard(let range): range
      }
    }

    var description: String {
      switch self {
      case .write(let range, _): "write \(range)"
      case .zeros(let range): "zeros \(range)"
      case .discard(let range): "discard \(range)"
      }
    }
  }

  mutating func nextStep() -> Step {
    let range = random.range(in: model.byteCount, most: min(3 * unit, 300_000), unit: unit)
    switch random.below(10) {
    case 0, 1: return .zeros(range)
    case 2: return .discard(range)
    case 3:
      // Whole units, which formats can do without storing.
      let start = range.lowerBound - range.lowerBound % unit
      let whole = start..<min(model.byteCount, start + unit * (1 + random.below(3)))
      return random.oneIn(2) ? .zeros(whole) : .discard(whole)
    case 4: return .write(range, random.bytes(range.count))
    default: return .write(range, random.fill(range.count))
    }
  }

  /// Does one step to an image only.
  static func apply(_ step: Step, to chain: ImageChain) throws(EngineError) {
    let offset = UInt64(step.range.lowerBound)
    switch step {
    case .write(_, let bytes): try chain.writeBytes(bytes, at: offset)
    case .zeros(let range): try chain.writeZeros(at: offset, count: UInt64(range.count))
    case .discard(let range): try chain.discard(at: offset, count: UInt64(range.count))
    }
  }

  /// Does one step to both.
  mutating func step(_ step: Step, on chain: ImageChain) throws {
    try Self.apply(step, to: chain)
    try follow(step, on: chain)
  }

  /// Does to the model what was done to the image.
  mutating func follow(_ step: Step, on chain: ImageChain) throws {
    touched.append(step.range)
    switch step {
    case .write(let range, let bytes): model.write(bytes, at: range.lowerBound)
    case .zeros(let range): model.writeZeros(at: range.lowerBound, count: range.count)
    case .discard(let range):
      let now = try chain.readBytes(at: UInt64(range.lowerBound), count: range.count)
      if let wrong = model.discard(at: range.lowerBound, reading: now, below: below) {
        Issue.record("After \(step), byte \(wrong) reads as nothing that is allowed, \(random)")
      }
    }
  }

  /// After a step that failed: each byte of its range may be old or new.
  mutating func followFailed(_ step: Step, on chain: ImageChain) throws {
    let range = step.range
    let now = try chain.readBytes(at: UInt64(range.lowerBound), count: range.count)
    for index in range {
      let byte = now[index - range.lowerBound]
      let new: UInt8
      if case .write(_, let bytes) = step { new = bytes[index - range.lowerBound] } else { new = 0 }
      let isBelow = below.map { index < $0.byteCount && $0.bytes[index] == byte } ?? false
      if byte != new && byte != model.bytes[index] && !isBelow {
        Issue.record("After \(step) failed, byte \(index) is neither old nor new, \(random)")
        break
      }
    }
    model.write(now, at: range.lowerBound)
  }

  /// Compares the whole disk.
  func verify(_ chain: ImageChain, _ moment: String) throws {
    if let wrong = ModelDisk.firstDifference(try chain.readAll(), model.bytes) {
      let steps = touched.enumerated().filter { $0.element.contains(wrong) }.map {
        "\($0.offset): \($0.element)"
      }
      Issue.record("\(moment): byte \(wrong) differs from the model, \(random); it was changed by \(steps)")
    }
  }
}

/// A model that several threads change, each its own stripes.
final class Stripes: Sendable {
  private let state: Guarded<ModelDisk>
  init(_ disk: ModelDisk) { state = Guarded(disk) }
  func set(_ bytes: [UInt8], at offset: Int) { state.withLock { $0.write(bytes, at: offset) } }
  var disk: ModelDisk { state.withLock { $0 } }
}
