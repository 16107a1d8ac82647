/// Takes numbers from an input; past its end they are 0, so that every input means something.
struct FuzzInput {
  private let bytes: ArraySlice<UInt8>
  private var position: Int

  init(_ bytes: [UInt8]) {
    self.bytes = bytes[...]
    position = 0
  }

  var isAtEnd: Bool { position >= bytes.count }

  /// What was not taken yet.
  var rest: ArraySlice<UInt8> { bytes[min(position, bytes.count)...] }

  mutating func byte() -> UInt8 {
    defer { position += 1 }
    return position < bytes.count ? bytes[position] : 0
  }

  mutating func flag() -> Bool { byte() & 1 != 0 }

  /// Little-endian, of `count` bytes, at most 7.
  mutating func number(bytes count: Int) -> Int {
    (0..<count).reduce(0) { sum, index in sum | Int(byte()) << (8 * index) }
  }

  /// Below `limit`, which is not 0.
  mutating func below(_ limit: Int) -> Int {
    number(bytes: limit <= 256 ? 1 : limit <= 65536 ? 2 : 4) % limit
  }

  /// A piece of `0..<end`, half the time of whole units.
  mutating func range(in end: Int, most: Int, unit: Int) -> Range<Int> {
    let shape = byte()
    var start = below(end)
    var count = 1 + below(most)
    if shape & 1 != 0 { start -= start % unit }
    if shape & 2 != 0 { count = (count + unit - 1) / unit * unit }
    return start..<min(end, start + count)
  }

  /// The next `count` bytes, fewer at the end.
  mutating func slice(_ count: Int) -> ArraySlice<UInt8> {
    let piece = rest.prefix(max(count, 0))
    position += piece.count
    return piece
  }
}
