/// Replaces what the first cluster says, so that a power cut leaves the old or the new and never a mixture.
///
/// A disk writes a sector whole or not at all. Where more sectors than the first change, the new extensions
/// and name are first written behind the old ones; then one write of the first sector makes the header point
/// there, past an extension that skips what lies between; then the place in front is written and the header,
/// again with one sector, goes back to it.
struct Qcow2PrologueWriter {
  private let file: any ByteStore
  private let clusterSize: Int

  /// The least that any disk writes as one.
  private static let sector = 512

  /// Writes `prologue` and makes it durable. All that it points to is durable already.
  static func write(_ prologue: Qcow2Prologue, to file: any ByteStore) throws(EngineError) {
    let writer = Qcow2PrologueWriter(file: file, clusterSize: Int(prologue.header.geometry.clusterSize))
    try writer.write(prologue)
  }

  private func write(_ prologue: Qcow2Prologue) throws(EngineError) {
    let current = try file.bytes(at: 0, count: clusterSize)
    var target = try prologue.serialised()
    // What the old names and extensions leave behind is no one's.
    let oldEnd = Self.sectors(Self.end(of: current))
    target.append(contentsOf: repeatElement(0, count: max(0, oldEnd - target.count)))
    target.pad(toMultipleOf: Self.sector)
    let rest = Array(target[Self.sector...])
    let isFirstOnly = rest.elementsEqual(current[Self.sector..<target.count])
    // Nil also for clusters too small for both: 1 or 2 KiB with long names.
    let copy = isFirstOnly ? nil : try writeBehind(prologue, at: max(oldEnd, target.count))
    if !isFirstOnly {
      try file.write(bytes: rest, at: UInt64(Self.sector))
      try file.flush()
    }
    try file.write(bytes: Array(target[..<Self.sector]), at: 0)
    try file.flush()
    if let copy { try file.write(bytes: Array(repeating: 0, count: copy.count), at: UInt64(copy.lowerBound)) }
  }

  /// Makes the header point to copies from `place` on, and says where they are; nil where the cluster has no
  /// room for them.
  private func writeBehind(_ prologue: Qcow2Prologue, at place: Int) throws(EngineError) -> Range<Int>? {
    let tail = prologue.extensions.serialised()
    let copy = tail + prologue.backingName
    let skipStart = Int(prologue.header.headerLength) + 8
    guard place + copy.count <= clusterSize, skipStart <= Self.sector else { return nil }
    try file.write(bytes: copy, at: UInt64(place))
    try file.flush()
    var first = try prologue.header(withNameAt: place + tail.count).serialised()
    first.append(bigEndian: Qcow2HeaderExtensions.Kind.skip)
    first.append(bigEndian: UInt32(place - skipStart))
    first.pad(toMultipleOf: Self.sector)
    try file.write(bytes: first, at: 0)
    try file.flush()
    return place..<place + copy.count
  }

  /// Where the bytes end that the header in `cluster` uses; all of it where that cannot be told.
  private static func end(of cluster: [UInt8]) -> Int {
    guard let last = cluster.lastIndex(where: { $0 != 0 }) else { return 0 }
    return last + 1
  }

  private static func sectors(_ byteCount: Int) -> Int {
    (byteCount + sector - 1) / sector * sector
  }
}
