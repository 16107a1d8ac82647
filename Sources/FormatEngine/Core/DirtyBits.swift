/// Which granules of a disk are dirty, in memory: one bit each, and room only where bits are set.
public struct DirtyBits: Sendable {
  /// Guest bytes that one bit stands for, as a power of two.
  public let granularityBits: UInt64
  /// Guest bytes. Nothing beyond them is ever dirty.
  public let virtualSize: UInt64
  /// Pages by their number; one that is not there is all zeros.
  private var pages: [UInt64: [UInt64]] = [:]

  /// Bits of a page: as many as the smallest cluster holds, so that a cluster is a whole number of pages.
  static let bitsInPage: UInt64 = 4096
  private static let wordsInPage = Int(bitsInPage / 64)
  private static let noBits = [UInt64](repeating: 0, count: wordsInPage)
  /// Shared by all pages that are full: long runs take no room of their own.
  private static let allBits = [UInt64](repeating: .max, count: wordsInPage)

  public init(granularityBits: UInt64, virtualSize: UInt64) {
    self.granularityBits = granularityBits
    self.virtualSize = virtualSize
  }

  public var isEmpty: Bool { pages.isEmpty }
  /// About how much room it takes.
  var byteCount: Int { pages.count * Int(Self.bitsInPage / 8) }

  /// Sets the bit of every granule that `bytes` touch.
  public mutating func insert(_ bytes: Range<UInt64>) {
    let last = min(bytes.upperBound, virtualSize)
    guard bytes.lowerBound < last else { return }
    var bit = bytes.lowerBound >> granularityBits
    let end = ((last - 1) >> granularityBits) + 1
    while bit < end {
      let page = bit / Self.bitsInPage
      let stop = min(end, (page + 1) * Self.bitsInPage)
      let inPage = Int(bit % Self.bitsInPage)..<Int(stop - page * Self.bitsInPage)
      if UInt64(inPage.count) == Self.bitsInPage {
        pages[page] = Self.allBits
      } else {
        Self.set(inPage, in: &pages[page, default: Self.noBits])
      }
      bit = stop
    }
  }

  private static func set(_ bits: Range<Int>, in words: inout [UInt64]) {
    for index in bits.lowerBound / 64...(bits.upperBound - 1) / 64 {
      let first = max(bits.lowerBound - index * 64, 0)
      let last = min(bits.upperBound - index * 64, 64) - 1
      words[index] |= (UInt64.max << UInt64(first)) & (UInt64.max >> UInt64(63 - last))
    }
  }

  /// Calls `body` with each run of guest bytes whose bits are set, in ascending order.
  public func forEachRun(_ body: (Range<UInt64>) throws(EngineError) -> Void) throws(EngineError) {
    var runs = DirtyRuns(granularityBits: granularityBits, virtualSize: virtualSize)
    for page in pages.keys.sorted() {
      guard let words = pages[page] else { continue }
      // Most full pages are the shared one, which is seen without looking at its words.
      guard words != Self.allBits else {
        try runs.appendRun(page * Self.bitsInPage..<(page + 1) * Self.bitsInPage, body)
        continue
      }
      for (index, word) in words.enumerated() {
        try runs.append(word, at: page * Self.bitsInPage + UInt64(index) * 64, body)
      }
    }
    try runs.finish(body)
  }

  /// The parts of the bitmap, `partBits` bits each (a multiple of `bitsInPage`), that have bits set.
  func parts(of partBits: UInt64) -> [UInt64] {
    let pagesInPart = partBits / Self.bitsInPage
    return Set(pages.keys.map { $0 / pagesInPart }).sorted()
  }

  /// Whether every bit of such a part is set.
  func isFull(part: UInt64, of partBits: UInt64) -> Bool {
    let pagesInPart = partBits / Self.bitsInPage
    return (part * pagesInPart..<(part + 1) * pagesInPart).allSatisfy { pages[$0] == Self.allBits }
  }

  /// Sets in `bytes`, which hold bits from `firstBit` on (a multiple of `bitsInPage`) with the least
  /// significant one first, those that are set here.
  func merge(into bytes: inout [UInt8], from firstBit: UInt64) {
    let first = firstBit / Self.bitsInPage
    for number in 0..<UInt64(bytes.count) * 8 / Self.bitsInPage {
      guard let words = pages[first + number] else { continue }
      var position = Int(number * Self.bitsInPage / 8)
      for word in words {
        if word != 0 {
          for byte in 0..<8 { bytes[position + byte] |= UInt8(truncatingIfNeeded: word >> UInt64(byte * 8)) }
        }
        position += 8
      }
    }
  }
}

/// Joins bits that are set one after the other into runs of guest bytes.
struct DirtyRuns {
  private let granularityBits: UInt64
  private let virtualSize: UInt64
  private var run: Range<UInt64> = 0..<0

  /// Bits beyond the end of the disk are passed over.
  init(granularityBits: UInt64, virtualSize: UInt64) {
    self.granularityBits = granularityBits
    self.virtualSize = virtualSize
  }

  /// 64 bits from number `first` on, the least significant one first. Bits come in ascending order.
  mutating func append(
    _ word: UInt64, at first: UInt64, _ body: (Range<UInt64>) throws(EngineError) -> Void
  ) throws(EngineError) {
    guard word != .max else { return try appendRun(first..<first + 64, body) }
    var rest = word
    while rest != 0 {
      let start = UInt64(rest.trailingZeroBitCount)
      let length = UInt64((~(rest >> start)).trailingZeroBitCount)
      try appendRun(first + start..<first + start + length, body)
      rest &= start + length < 64 ? UInt64.max << (start + length) : 0
    }
  }

  /// Bits that are all set.
  mutating func appendRun(
    _ bits: Range<UInt64>, _ body: (Range<UInt64>) throws(EngineError) -> Void
  ) throws(EngineError) {
    if run.upperBound == bits.lowerBound && !run.isEmpty {
      run = run.lowerBound..<bits.upperBound
    } else {
      try finish(body)
      run = bits
    }
  }

  /// Gives the last run.
  mutating func finish(_ body: (Range<UInt64>) throws(EngineError) -> Void) throws(EngineError) {
    defer { run = 0..<0 }
    let bitCount = virtualSize.dividedRoundingUp(by: 1 << granularityBits)
    let end = min(run.upperBound, bitCount)
    guard run.lowerBound < end else { return }
    try body(run.lowerBound << granularityBits..<min(end << granularityBits, virtualSize))
  }
}
