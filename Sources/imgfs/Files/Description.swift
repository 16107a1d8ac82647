import FormatEngine

/// The texts of `info.json` and `map.json`: what `qemu-img info` and `qemu-img map` print as JSON.
enum Description {
  /// More than two million runs; a disk in more pieces has no map that anybody could read.
  static let maximumMapByteCount = 256 * Int(MiB)

  static func info(of member: ChainMember) throws(EngineError) -> [UInt8] {
    text(of: try ImageInfo.of(member))
  }

  static func map(of chain: ImageChain) throws(EngineError) -> [UInt8] {
    var text: [UInt8] = []
    try Mapper.writeJSON(chain, in: 0..<chain.virtualSize) { (piece) throws(EngineError) in
      guard text.count + piece.count <= maximumMapByteCount else {
        throw EngineError(.tooLarge, "The map has more than \(maximumMapByteCount) bytes")
      }
      text += piece
    }
    return text
  }

  static func text(of info: ImageInfo) -> [UInt8] { Array((JSONText.pretty(info.json) + "\n").utf8) }
}

/// What is told of the snapshots of one image file: the file's own description, with the snapshot's size,
/// and with that snapshot alone in its list.
final class SnapshotDescriptions: Sendable {
  private let depth: Int
  private let isKept: Bool
  /// The file's description, gathered once for all of its snapshots where it stays true. Before every lock of the
  /// engine.
  private let gathered = Guarded<ImageInfo?>(nil)

  init(_ session: ImageSession, depth: Int) {
    self.depth = depth
    isKept = !session.access.isWritable
  }

  func info(of record: SnapshotRecord, _ chain: ImageChain) throws(EngineError) -> [UInt8] {
    var info = try gathered.withLock { (gathered) throws(EngineError) in
      if isKept, let gathered { return gathered }
      var info = try ImageInfo.of(chain.members[depth])
      info.snapshots = []
      gathered = info
      return info
    }
    info.virtualSize = record.virtualSize
    info.snapshots = [record]
    return Description.text(of: info)
  }
}
