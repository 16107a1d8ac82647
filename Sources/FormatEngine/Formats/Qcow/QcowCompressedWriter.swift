import Synchronization

/// Takes clusters already packed, byte behind byte.
extension QcowLayer: CompressedWriting {
  var compressionUnit: UInt64 { clusterSize }
  var needsAscendingOffsets: Bool { false }

  /// Streams may look back 4 KiB, whatever the size of clusters.
  func makePacker() throws(EngineError) -> any ClusterPacker {
    clusterSize <= 4 * KiB ? try DeflatePacker(.raw, level: 6) : try SmallWindowPacker(windowBits: 12)
  }

  func storeCompressed(_ bytes: UnsafeRawBufferPointer, pieces: [PackedPiece]) throws(EngineError) {
    guard !isEncrypted else {
      throw .unsupported("Compression and encryption not supported at the same time")
    }
    let total = pieces.reduce(0) { $0 + UInt64($1.byteCount) }
    let start = try state.withLock { (state) throws(EngineError) in
      try state.reserve(total, isAligned: false)
    }
    unsafe try file.write(bytes, at: start)
    try state.withLock { (state) throws(EngineError) in
      try state.end.extend(to: start + total)
      var place = start
      for piece in pieces {
        try state.link(piece, at: place)
        place += UInt64(piece.byteCount)
      }
    }
  }

  func finishCompressed() throws(EngineError) {}
}

extension QcowState {
  fileprivate mutating func link(_ piece: PackedPiece, at hostOffset: UInt64) throws(EngineError) {
    guard let raw = QcowEntry.packedRaw(at: hostOffset, byteCount: UInt64(piece.byteCount), geometry) else {
      throw EngineError(.tooLarge, "The image file is larger than entries of compressed clusters can address")
    }
    let table = try writableTable(for: piece.guestOffset)
    try replaceEntry(at: piece.guestOffset, in: table, withRaw: raw)
  }
}
