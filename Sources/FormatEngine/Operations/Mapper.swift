/// A run of guest bytes that lie in one place, as `map` prints it.
public struct MapEntry: BitwiseCopyable, Equatable, Sendable {
  public var start: UInt64
  public var length: UInt64
  /// 0 for the top layer.
  public var depth: Int
  /// Some layer has these bytes, if only as zeros.
  public var isPresent: Bool
  public var isZero: Bool
  /// There is room in a file that holds them.
  public var isData: Bool
  public var isCompressed: Bool
  /// Where they are in `store` of the layer at `depth`.
  public var offset: UInt64?
  public var store: UInt16

  init(_ found: LocatedExtent, of member: ChainMember, at start: UInt64) {
    let extent = found.extent
    self.start = start
    length = extent.length
    depth = found.depth
    store = extent.store
    isPresent = extent.source != .below
    isCompressed = extent.source == .compressed
    switch extent.source {
    case .below, .zeros:
      (isZero, isData) = (true, false)
      offset = extent.isEncrypted ? nil : extent.hostOffset
    case .stored:
      isZero = extent.isHole
      // A hole of a raw disk is no data; a hole that a format says is stored has its room set aside.
      isData = !(extent.isHole && member.isPlain)
      offset = extent.isEncrypted ? nil : extent.hostOffset
    case .compressed:
      (isZero, isData) = (false, true)
      offset = nil
    }
  }

  init(nothingAt start: UInt64) {
    self.start = start
    (length, depth, store) = (0, 0, 0)
    (isPresent, isZero, isData, isCompressed) = (false, false, false, false)
    offset = nil
  }

  /// Whether `next`, which starts where this one ends, only continues it.
  func continues(into next: MapEntry) -> Bool {
    guard isZero == next.isZero, isData == next.isData, isPresent == next.isPresent, depth == next.depth,
      isCompressed == next.isCompressed, (offset == nil) == (next.offset == nil)
    else { return false }
    guard let offset, let other = next.offset else { return true }
    return store == next.store && offset &+ length == other
  }

  /// The flags by which `compare -s` tells allocation apart.
  var status: [Bool] { [isPresent, isZero, isData, isCompressed, offset != nil] }
}

/// Tells where the guest's bytes are.
public enum Mapper {
  /// Calls `body` with the runs of `range`, in order, neighbours of one kind joined. A range that ends
  /// past the disk ends with the disk; where nothing is left there is one entry of length 0.
  ///
  /// `progress` is asked before each look into the tables whether to go on.
  public static func walk(
    _ chain: ImageChain, in range: Range<UInt64>, _ progress: Progress = .none,
    _ body: (MapEntry) throws(EngineError) -> Void
  ) throws(EngineError) {
    let end = min(range.upperBound, chain.virtualSize)
    var current = MapEntry(nothingAt: range.lowerBound)
    var position = range.lowerBound
    while position < end {
      try progress.proceed()
      let next = try entry(chain, at: position, limit: end - position)
      if current.length > 0 && current.continues(into: next) {
        current.length += next.length
      } else {
        if current.length > 0 { try body(current) }
        current = next
      }
      position += next.length
    }
    try body(current)
  }

  static func entry(_ chain: ImageChain, at position: UInt64, limit: UInt64) throws(EngineError) -> MapEntry {
    do throws(EngineError) {
      let found = try chain.extent(at: position, limit: limit)
      return MapEntry(found, of: chain.members[found.depth], at: position)
    } catch {
      throw error.whileTrying("Failed to read image metadata")
    }
  }

  /// As `map --output=json` prints it, in pieces of about 64 KiB: a large disk's map is never whole in
  /// memory.
  public static func writeJSON(
    _ chain: ImageChain, in range: Range<UInt64>, _ progress: Progress = .none,
    to write: ([UInt8]) throws(EngineError) -> Void
  ) throws(EngineError) {
    var text = Array("[".utf8)
    text.reserveCapacity(68 << 10)
    var isFirst = true
    try walk(chain, in: range, progress) { (entry) throws(EngineError) in
      if !isFirst { text.append(contentsOf: ",\n".utf8) }
      isFirst = false
      append(entry, to: &text)
      if text.count >= 64 << 10 {
        try write(text)
        text.removeAll(keepingCapacity: true)
      }
    }
    text.append(contentsOf: "]\n".utf8)
    try write(text)
  }

  private static func append(_ entry: MapEntry, to text: inout [UInt8]) {
    text.append(contentsOf: startLabel)
    append(entry.start, to: &text)
    text.append(contentsOf: lengthLabel)
    append(entry.length, to: &text)
    text.append(contentsOf: depthLabel)
    append(UInt64(entry.depth), to: &text)
    let flags =
      (entry.isPresent ? 1 : 0) | (entry.isZero ? 2 : 0) | (entry.isData ? 4 : 0)
      | (entry.isCompressed ? 8 : 0)
    text.append(contentsOf: flagTexts[flags])
    if let offset = entry.offset {
      text.append(contentsOf: offsetLabel)
      append(offset, to: &text)
    }
    text.append(UInt8(ascii: "}"))
  }

  private static let startLabel = Array("{ \"start\": ".utf8)
  private static let lengthLabel = Array(", \"length\": ".utf8)
  private static let depthLabel = Array(", \"depth\": ".utf8)
  private static let offsetLabel = Array(", \"offset\": ".utf8)

  /// The text of all flags, by their bits: present, zero, data, compressed.
  private static let flagTexts: [[UInt8]] = (0..<16).map { bits in
    Array(
      (", \"present\": \(bits & 1 != 0), \"zero\": \(bits & 2 != 0), \"data\": \(bits & 4 != 0)"
        + ", \"compressed\": \(bits & 8 != 0)").utf8)
  }

  private static func append(_ number: UInt64, to text: inout [UInt8]) {
    var width = 1
    var rest = number
    while rest >= 10 {
      rest /= 10
      width += 1
    }
    text.append(contentsOf: repeatElement(0, count: width))
    rest = number
    for index in stride(from: text.count - 1, through: text.count - width, by: -1) {
      text[index] = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: rest % 10)
      rest /= 10
    }
  }
}
