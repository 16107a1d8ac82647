/// Bits that are read from the last one backwards: the codes of finite state entropy.
struct FSEBits {
  private let bytes: PackedBytes
  /// Bits that are left.
  private var position: Int

  /// `unused`: bits of the last byte that do not count, 0 to 7.
  init(_ bytes: PackedBytes, unused: Int) {
    self.bytes = bytes
    position = bytes.count * 8 - unused
  }

  /// The next `count` bits, at most 32, the first one the highest.
  mutating func take(_ count: Int) throws(EngineError) -> Int {
    position -= count
    guard position >= 0 else { throw .corrupt("The codes of an LZFSE block end too early") }
    let word = bytes.word(at: position >> 3) >> UInt64(position & 7)
    return Int(word & ((1 << UInt64(count)) - 1))
  }
}

/// A decoder of symbols: each state stands for one, and says which bits lead to the next state.
struct FSETable {
  private struct State {
    var symbol: UInt16
    var bitCount: UInt8
    /// The next state is the bits and this.
    var base: Int16
  }

  private var states: [State] = []

  /// A symbol has as many states as its frequency says, in order; all together are 2^`stateBits`.
  init(_ frequencies: ArraySlice<UInt16>, stateBits: Int) throws(EngineError) {
    let count = 1 << stateBits
    guard frequencies.reduce(0, { $0 + Int($1) }) == count else {
      throw .corrupt("The frequencies of an LZFSE block are damaged")
    }
    states.reserveCapacity(count)
    for (symbol, frequency) in frequencies.enumerated() where frequency > 0 {
      let frequency = Int(frequency)
      // The states of a symbol share the next states out: the first ones read one bit more than the others.
      let bits = stateBits - (Int.bitWidth - 1 - frequency.leadingZeroBitCount)
      let longCount = ((2 * count) >> bits) - frequency
      for index in 0..<frequency {
        let isLong = index < longCount
        let base = isLong ? ((frequency + index) << bits) - count : (index - longCount) << (bits - 1)
        states.append(
          State(
            symbol: UInt16(symbol), bitCount: UInt8(isLong ? bits : bits - 1),
            base: Int16(truncatingIfNeeded: base)))
      }
    }
  }

  /// The symbol of a state, which becomes the next one.
  func next(_ state: inout Int, _ bits: inout FSEBits) throws(EngineError) -> Int {
    guard state >= 0, state < states.count else { throw .corrupt("A state of an LZFSE block is damaged") }
    let entry = states[state]
    state = Int(entry.base) + (try bits.take(Int(entry.bitCount)))
    return Int(entry.symbol)
  }
}

/// A decoder of numbers: a symbol stands for a range of them, and further bits say which.
struct FSEValues {
  /// How many further bits the symbols have; the ranges follow each other.
  static let literalLengths = [Int](repeating: 0, count: 16) + [2, 3, 5, 8]
  static let repetitionLengths = [Int](repeating: 0, count: 16) + [3, 5, 8, 11]
  static let distances = (0..<16).flatMap { [Int](repeating: $0, count: 4) }

  private let table: FSETable
  private let extraBits: [Int]
  private let bases: [Int]

  init(_ frequencies: ArraySlice<UInt16>, stateBits: Int, extraBits: [Int]) throws(EngineError) {
    table = try FSETable(frequencies, stateBits: stateBits)
    self.extraBits = extraBits
    var (bases, next): ([Int], Int) = ([], 0)
    for bits in extraBits {
      bases.append(next)
      next += 1 << bits
    }
    self.bases = bases
  }

  /// The number of a state, which becomes the next one. The bits of the state come first.
  func next(_ state: inout Int, _ bits: inout FSEBits) throws(EngineError) -> Int {
    let symbol = try table.next(&state, &bits)
    return bases[symbol] + (try bits.take(extraBits[symbol]))
  }
}
