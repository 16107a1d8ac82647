/// The small sister of LZFSE: literals and repetitions behind codes of one byte, in four sizes.
///
/// L literals come right after the code; then M bytes from distance D are repeated.
///
/// | code                         | L       | M               | D                             |
/// |------------------------------|---------|-----------------|-------------------------------|
/// | LLMMMDDD dddddddd            | 0-3     | M + 3           | DDD (0-5), d                  |
/// | LLMMM111 dddddddd dddddddd   | 0-3     | M + 3           | d, little-endian              |
/// | LLMMM110                     | 1-3     | M + 3           | as before                     |
/// | 101LLMMM ddddddmm dddddddd   | 0-3     | Mm + 3          | d, little-endian              |
/// | 1110LLLL                     | 1-15    | -               | -                             |
/// | 11100000 llllllll            | l + 16  | -               | -                             |
/// | 1111MMMM                     | -       | 1-15            | as before                     |
/// | 11110000 mmmmmmmm            | -       | m + 16          | as before                     |
/// | 00000110                     | the end, seven bytes follow                              |||
/// | 00001110, 00010110           | nothing                                                  |||
///
/// 0111xxxx, 1101xxxx and the rest of 00xxx110 mean nothing.
struct LZVN {
  private var distance = 0

  /// Unpacks one block to its end mark; repetitions may reach back into what `output` held before.
  static func unpack(_ input: inout PackedBytes, into output: inout UnpackedBytes) throws(EngineError) {
    var state = LZVN()
    while try state.step(&input, &output) {}
  }

  /// Does what the next code says; false at the end mark.
  private mutating func step(_ input: inout PackedBytes, _ output: inout UnpackedBytes) throws(EngineError)
    -> Bool
  {
    let code = Int(try input.byte())
    switch code {
    case 0x06: return false
    case 0x0e, 0x16: return true
    case 0xe0: try output.copy(Int(try input.byte()) + 16, from: &input)
    case 0xe1...0xef: try output.copy(code & 15, from: &input)
    case 0xf0: try output.repeat(Int(try input.byte()) + 16, distance: distance)
    case 0xf1...0xff: try output.repeat(code & 15, distance: distance)
    case 0xa0...0xbf:
      let word = Int(try input.littleEndian(UInt16.self))
      distance = word >> 2
      try move(literals: code >> 3 & 3, repeated: ((code & 7) << 2 | word & 3) + 3, &input, &output)
    case 0x70...0x7f, 0xd0...0xdf: throw Self.unknown(code)
    default:
      switch code & 7 {
      case 7: distance = Int(try input.littleEndian(UInt16.self))
      case 6: if code < 0x40 { throw Self.unknown(code) }
      default: distance = (code & 7) << 8 | Int(try input.byte())
      }
      try move(literals: code >> 6, repeated: (code >> 3 & 7) + 3, &input, &output)
    }
    return true
  }

  private func move(
    literals: Int, repeated: Int, _ input: inout PackedBytes, _ output: inout UnpackedBytes
  ) throws(EngineError) {
    try output.copy(literals, from: &input)
    try output.repeat(repeated, distance: distance)
  }

  private static func unknown(_ code: Int) -> EngineError {
    .corrupt("An LZVN stream has the code \(code), which means nothing")
  }
}
