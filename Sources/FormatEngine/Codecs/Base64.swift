/// Base64 (RFC 4648) as documents have it: white space anywhere between the characters.
enum Base64 {
  /// The bytes, or `corrupt` where there is anything else.
  static func decode(_ text: String) throws(EngineError) -> [UInt8] {
    var decoder = Decoder()
    decoder.reserve(text.utf8.count)
    decoder.add(text.utf8)
    return try decoder.finish()
  }

  /// Takes the text piece by piece, so that it need not be in memory beside its bytes.
  struct Decoder: Equatable {
    private var result: [UInt8] = []
    private var word: UInt32 = 0
    private var digitCount = 0
    private var padding = 0
    private var isDamaged = false

    mutating func reserve(_ characterCount: Int) { result.reserveCapacity(characterCount / 4 * 3) }

    mutating func add(_ text: some Sequence<UInt8>) {
      for character in text {
        switch character {
        case 0x20, 0x09, 0x0a, 0x0d: continue
        case UInt8(ascii: "="): padding += 1
        default:
          guard padding == 0, let digit = Base64.value(of: character) else { return isDamaged = true }
          word = word << 6 | digit
          digitCount += 1
          guard digitCount == 4 else { continue }
          for shift: UInt32 in [16, 8, 0] { result.append(UInt8(truncatingIfNeeded: word >> shift)) }
          (word, digitCount) = (0, 0)
        }
      }
    }

    /// All bytes.
    consuming func finish() throws(EngineError) -> [UInt8] {
      // The last digits: two are a byte, three are two.
      guard !isDamaged, digitCount != 1, padding <= 2 else { throw Base64.damaged }
      if digitCount >= 2 {
        result.append(UInt8(truncatingIfNeeded: word >> (digitCount == 2 ? 4 : 10)))
      }
      if digitCount == 3 { result.append(UInt8(truncatingIfNeeded: word >> 2)) }
      return result
    }
  }

  fileprivate static let damaged = EngineError.corrupt("Base64 text has characters that do not belong there")

  fileprivate static func value(of character: UInt8) -> UInt32? {
    switch character {
    case UInt8(ascii: "A")...UInt8(ascii: "Z"): UInt32(character - UInt8(ascii: "A"))
    case UInt8(ascii: "a")...UInt8(ascii: "z"): UInt32(character - UInt8(ascii: "a")) + 26
    case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt32(character - UInt8(ascii: "0")) + 52
    case UInt8(ascii: "+"): 62
    case UInt8(ascii: "/"): 63
    default: nil
    }
  }
}
