import Synchronization

extension VHDXLayer: Emptyable {
  /// Everything is the parent's again.
  func removeContent(progress: Progress) throws(EngineError) {
    let geometry = image.metadata.geometry
    guard geometry.hasParent else { throw .unsupported("A VHDX without a parent cannot be emptied") }
    for block in 0..<geometry.blockCount {
      if block % 4096 == 0 { try progress.step(block, of: geometry.blockCount) }
      try change { (state) throws(EngineError) in try state.letGo(ofBlock: block, as: .notPresent) }
    }
    for chunk in 0..<geometry.chunkCount {
      try change { (state) throws(EngineError) in
        let place = state.entryOffset(geometry.bitmapEntryIndex(ofChunk: chunk))
        if try state.pages.number(at: place) != 0 { try state.pages.setNumber(at: place, to: 0) }
      }
    }
    try change { (state) throws(EngineError) in
      try state.flush()
      try state.cutOffFreeEnd()
    }
  }
}
