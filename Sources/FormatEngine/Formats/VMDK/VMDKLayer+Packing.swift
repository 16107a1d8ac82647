import Synchronization

/// Takes grains already packed: streamOptimized images have no others, and are written from front to back, once.
extension VMDKLayer: CompressedWriting {
  var unitPacking: UnitPacking {
    extents.count == 1 && extents[0].geometry?.isPacked == true ? .always : .never
  }
  var compressionUnit: UInt64 { clusterSize }
  var largestPackedUnit: UInt64 { VMDKGrainPacking.largestPackedGrain(ofSize: clusterSize) }
  var needsAscendingOffsets: Bool { true }

  func makePacker() throws(EngineError) -> any ClusterPacker { try VMDKGrainPacking.makePacker() }

  func storeCompressed(_ bytes: UnsafeRawBufferPointer, pieces: [PackedPiece]) throws(EngineError) {
    try stream.withLock { (stream) throws(EngineError) in
      if stream == nil { stream = try begunStream() }
      unsafe try stream?.append(bytes, pieces)
    }
  }

  func finishCompressed() throws(EngineError) {
    try stream.withLock { (stream) throws(EngineError) in
      guard let footer = try stream?.finish() else { return }
      stream = nil
      let geometry = try VMDKGrainGeometry(footer, byteCount: virtualSize)
      state.withLock { $0.endStream(geometry) }
    }
  }

  /// The end of a new image gives way to its grains.
  private func begunStream() throws(EngineError) -> VMDKStreamWriter {
    guard unitPacking == .always, extents[0].geometry?.hasMarkers == true, extents[0].isOwnFile else {
      throw .unsupported("Packed grains are only written to streamOptimized VMDK images of one file")
    }
    // The footer, which was checked, but for the place of the directory; the header says the same where nobody damaged it.
    var header = try VMDKSparseHeader.read(from: file)
    header.directoryOffset = VMDKSparseHeader.directoryAtEnd
    guard try VMDKSparseHeader.read(from: file, at: 0) == header else {
      throw .unsupported("Packed grains are only written to images whose directory is at their end")
    }
    try requireEmpty()
    try state.withLock { (state) throws(EngineError) in
      try renewContentID(&state)
      state.beginStream()
    }
    try file.resize(to: header.overheadSectors * VMDKExtentLine.sectorByteCount)
    return try VMDKStreamWriter(header, file: file)
  }

  private func requireEmpty() throws(EngineError) {
    var offset: UInt64 = 0
    while offset < virtualSize {
      let found = try extent(at: offset, limit: virtualSize - offset)
      guard found.source == .below else {
        throw EngineError(
          .unsupported, "Could not write to allocated cluster for streamOptimized", offset: offset)
      }
      offset += found.length
    }
  }
}
