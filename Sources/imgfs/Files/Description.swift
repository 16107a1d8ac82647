import FormatEngine

/// The texts of `info.json` and `map.json`: what `qemu-img info` and `qemu-img map` print as JSON.
enum Description {
  /// Half a million runs, or the most snapshots that an image can have, with names of 255 letters. Whoever asks for the
  /// size of such a file, be it a search, makes imgfs hold all of its text; qemu-img prints longer ones.
  static let maximumByteCount = 64 * Int(MiB)

  static func info(of member: ChainMember) throws(EngineError) -> [UInt8] {
    try text(of: try ImageInfo.of(member))
  }

  static func map(
    of chain: ImageChain, seconds: Double = Patience.forAnswer
  ) throws(EngineError) -> [UInt8] {
    let patience = Guarded(Patience(seconds: seconds))
    let progress = Progress(report: { _, _ in }, isCancelled: { patience.withLock { $0.isOver() } })
    var text: [UInt8] = []
    do throws(EngineError) {
      try Mapper.writeJSON(chain, in: 0..<chain.virtualSize, progress) { (piece) throws(EngineError) in
        try append(piece, to: &text)
      }
    } catch {
      guard error.code == .cancelled else { throw error }
      throw EngineError(
        .tooLarge, "The map is not written after \(Int(seconds)) seconds of work; qemu-img prints it")
    }
    return text
  }

  static func text(of info: ImageInfo) throws(EngineError) -> [UInt8] {
    var text: [UInt8] = []
    try JSONText.write(info.json) { (piece) throws(EngineError) in try append(Array(piece.utf8), to: &text) }
    try append([UInt8(ascii: "\n")], to: &text)
    return text
  }

  private static func append(_ piece: [UInt8], to text: inout [UInt8]) throws(EngineError) {
    guard text.count + piece.count <= maximumByteCount else {
      throw EngineError(.tooLarge, "The text has more than \(maximumByteCount) bytes; qemu-img prints it")
    }
    // Pages that are not touched take no memory; an array that grows is there twice for a moment.
    if text.count + piece.count > MiB && text.capacity < maximumByteCount {
      text.reserveCapacity(maximumByteCount)
    }
    text += piece
  }
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
    return try Description.text(of: info)
  }
}
