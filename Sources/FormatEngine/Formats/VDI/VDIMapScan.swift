/// Walks over a whole block map as it stands on disk.
struct VDIMapScan {
  let file: any ByteStore
  let mapOffset: UInt64
  let count: UInt64

  init(_ file: any ByteStore, _ header: VDIHeader) {
    self.file = file
    mapOffset = UInt64(header.mapOffset)
    count = UInt64(header.blockCount)
  }

  private static let pieceCount: UInt64 = 64 * KiB

  /// Calls `body` with the number of each block that has room, and with its room.
  func forEachRoom(
    progress: Progress = .none, _ body: (_ block: UInt64, _ room: UInt32) throws(EngineError) -> Void
  ) throws(EngineError) {
    var first: UInt64 = 0
    while first < count {
      try progress.step(first, of: count)
      let entries = min(Self.pieceCount, count - first)
      let bytes = try file.bytes(at: mapOffset + first * 4, count: Int(entries * 4))
      try bytes.parsed { (span) throws(EngineError) in
        for index in 0..<entries {
          let entry = VDIEntry(try span.littleEndian(UInt32.self, at: Int(index * 4)))
          if let room = entry.room { try body(first + index, room) }
        }
      }
      first += entries
    }
  }
}
