/// The header of an FSE block, after its magic and its count of unpacked bytes.
///
/// Plain (bvx1), all little-endian, from the block's start:
///
/// | bytes    | field                                                    |
/// |----------|----------------------------------------------------------|
/// | 8..11    | packed bytes                                             |
/// | 12..15   | literals                                                 |
/// | 16..19   | repetitions                                              |
/// | 20..23   | bytes of the literals' codes                             |
/// | 24..27   | bytes of the repetitions' codes                          |
/// | 28..31   | bits of the literals' last byte that count, less 8       |
/// | 32..39   | four states of the literals' decoder                     |
/// | 40..43   | bits of the repetitions' last byte that count, less 8    |
/// | 44..49   | states of the L, M and D decoders                        |
/// | 50..769  | frequencies of the symbols: 20 L, 20 M, 64 D, 256 literals |
/// | 770..771 | nothing                                                  |
///
/// Packed (bvx2): the same in three words of 64 bits (bytes 8..31), then the frequencies in codes of 2 to 14 bits.
///
/// | word | bits                                                                                     |
/// |------|------------------------------------------------------------------------------------------|
/// | 0    | 0-19 literals, 20-39 bytes of their codes, 40-59 repetitions, 60-62 literal bits + 7      |
/// | 1    | 0-39 four literal states, 40-59 bytes of the repetitions' codes, 60-62 their bits + 7    |
/// | 2    | 0-31 bytes of the header, 32-61 three states: L, M, D                                    |
struct LZFSEBlockHeader {
  private var literalCount = 0
  private var repetitionCount = 0
  private var literalByteCount = 0
  private var repetitionByteCount = 0
  private var literalBits = 0
  private var repetitionBits = 0
  private var literalStates = [0, 0, 0, 0]
  /// L, M, D.
  private var states = [0, 0, 0]
  /// Of all symbols of L, M, D and literals, one after the other.
  private var frequencies = [UInt16](repeating: 0, count: Self.symbolCount)

  private static let symbolCount = 20 + 20 + 64 + 256
  /// What an encoder puts into one block at most.
  private static let maximumLiterals = 40_000
  private static let maximumRepetitions = 10_000

  /// `byteCount`: what the block unpacks to.
  init(plain input: inout PackedBytes, unpackingTo byteCount: Int) throws(EngineError) {
    _ = try input.littleEndian(UInt32.self)
    literalCount = Int(try input.littleEndian(UInt32.self))
    repetitionCount = Int(try input.littleEndian(UInt32.self))
    literalByteCount = Int(try input.littleEndian(UInt32.self))
    repetitionByteCount = Int(try input.littleEndian(UInt32.self))
    literalBits = Int(try input.littleEndian(Int32.self))
    for index in 0..<4 { literalStates[index] = Int(try input.littleEndian(UInt16.self)) }
    repetitionBits = Int(try input.littleEndian(Int32.self))
    for index in 0..<3 { states[index] = Int(try input.littleEndian(UInt16.self)) }
    for index in 0..<Self.symbolCount { frequencies[index] = try input.littleEndian(UInt16.self) }
    _ = try input.littleEndian(UInt16.self)
    try validate(unpackingTo: byteCount)
  }

  init(packed input: inout PackedBytes, unpackingTo byteCount: Int) throws(EngineError) {
    let words = (
      try input.littleEndian(UInt64.self), try input.littleEndian(UInt64.self),
      try input.littleEndian(UInt64.self)
    )
    func field(_ word: UInt64, _ first: UInt64, _ count: UInt64) -> Int {
      Int(word >> first & ((1 << count) - 1))
    }
    literalCount = field(words.0, 0, 20)
    literalByteCount = field(words.0, 20, 20)
    repetitionCount = field(words.0, 40, 20)
    literalBits = field(words.0, 60, 3) - 7
    for index in 0..<4 { literalStates[index] = field(words.1, UInt64(10 * index), 10) }
    repetitionByteCount = field(words.1, 40, 20)
    repetitionBits = field(words.1, 60, 3) - 7
    for index in 0..<3 { states[index] = field(words.2, UInt64(32 + 10 * index), 10) }
    // The header's size counts the magic, the byte count and these words.
    var codes = try input.take(field(words.2, 0, 32) - 32)
    frequencies = try LZFSEFrequencies.unpack(&codes, count: Self.symbolCount)
    try validate(unpackingTo: byteCount)
  }

  /// Literals are filled up to fours, and each repetition stands for a byte at least: a block that says otherwise would
  /// take much time for nothing.
  private func validate(unpackingTo byteCount: Int) throws(EngineError) {
    guard literalCount <= min(Self.maximumLiterals, byteCount + 3), literalCount % 4 == 0,
      repetitionCount <= min(Self.maximumRepetitions, byteCount), (-7...0).contains(literalBits),
      (-7...0).contains(repetitionBits)
    else { throw .corrupt("The header of an LZFSE block is damaged") }
  }

  /// Unpacks the codes that follow the header.
  func unpack(_ input: inout PackedBytes, into output: inout UnpackedBytes) throws(EngineError) {
    let literalCodes = try input.take(literalByteCount)
    let repetitionCodes = try input.take(repetitionByteCount)
    let literals = try unpackLiterals(literalCodes)
    var failure: EngineError?
    unsafe literals.withUnsafeBytes { raw in
      var rest = unsafe PackedBytes(raw)
      do throws(EngineError) { try unpackRepetitions(repetitionCodes, &rest, &output) } catch {
        failure = error
      }
    }
    if let failure { throw failure }
  }

  private func unpackLiterals(_ codes: PackedBytes) throws(EngineError) -> [UInt8] {
    guard literalCount > 0 else { return [] }
    let table = try FSETable(frequencies[104...], stateBits: 10)
    var bits = FSEBits(codes, unused: -literalBits)
    var states = literalStates
    var literals: [UInt8] = []
    literals.reserveCapacity(literalCount)
    // Four decoders take turns at the same bits.
    for index in 0..<literalCount {
      literals.append(UInt8(truncatingIfNeeded: try table.next(&states[index & 3], &bits)))
    }
    return literals
  }

  private func unpackRepetitions(
    _ codes: PackedBytes, _ literals: inout PackedBytes, _ output: inout UnpackedBytes
  ) throws(EngineError) {
    guard repetitionCount > 0 else { return }
    let lengths = try FSEValues(frequencies[..<20], stateBits: 6, extraBits: FSEValues.literalLengths)
    let repetitions = try FSEValues(
      frequencies[20..<40], stateBits: 6, extraBits: FSEValues.repetitionLengths)
    let distances = try FSEValues(frequencies[40..<104], stateBits: 8, extraBits: FSEValues.distances)
    var bits = FSEBits(codes, unused: -repetitionBits)
    var (l, m, d) = (states[0], states[1], states[2])
    var distance = 0
    for _ in 0..<repetitionCount {
      let literalLength = try lengths.next(&l, &bits)
      let repeated = try repetitions.next(&m, &bits)
      let new = try distances.next(&d, &bits)
      // 0: as before.
      if new != 0 { distance = new }
      try output.copy(literalLength, from: &literals)
      if repeated > 0 { try output.repeat(repeated, distance: distance) }
    }
  }
}

/// The packed frequencies of a block's symbols: from the lowest bit on, codes that tell by their own low bits how
/// long they are.
///
/// | low bits | bits | value                       |
/// |----------|------|-----------------------------|
/// | 00       | 2    | 0                           |
/// | 10       | 2    | 1                           |
/// | 001      | 3    | 2                           |
/// | 101      | 3    | 3                           |
/// | nn011    | 5    | 4 + nn                      |
/// | nnnn0111 | 8    | 8 + nnnn                    |
/// | n..n1111 | 14   | 24 + the upper ten bits     |
enum LZFSEFrequencies {
  static func unpack(_ codes: inout PackedBytes, count: Int) throws(EngineError) -> [UInt16] {
    var result = [UInt16](repeating: 0, count: count)
    // None at all: a block without codes.
    guard codes.count > 0 else { return result }
    var (word, bitCount): (UInt32, UInt32) = (0, 0)
    for index in 0..<count {
      while bitCount < 14, !codes.isAtEnd {
        word |= UInt32(try codes.byte()) << bitCount
        bitCount += 8
      }
      let (value, used) = code(word)
      guard used <= bitCount else { throw .corrupt("The frequencies of an LZFSE block end too early") }
      result[index] = UInt16(truncatingIfNeeded: value)
      word >>= used
      bitCount -= used
    }
    return result
  }

  private static func code(_ word: UInt32) -> (value: UInt32, bits: UInt32) {
    switch word & 15 {
    case let low where low & 3 == 0: (0, 2)
    case let low where low & 3 == 2: (1, 2)
    case let low where low & 7 == 1: (2, 3)
    case let low where low & 7 == 5: (3, 3)
    case let low where low & 7 == 3: (4 + (word >> 3 & 3), 5)
    case 7: (8 + (word >> 4 & 15), 8)
    default: (24 + (word >> 4 & 0x3ff), 14)
    }
  }
}
