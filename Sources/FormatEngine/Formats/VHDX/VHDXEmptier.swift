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

extension VHDXLayer: ParentRecording {
  func recordState(ofParent parent: any ImageLayer) throws(EngineError) {
    guard let parent = parent as? VHDXLayer else { return }
    let linkage = parent.state.withLock { $0.headers.header.dataWriteGuid }
    try change { (state) throws(EngineError) in
      try state.recordLinkage(linkage)
      try state.flush()
    }
  }
}

extension VHDXState {
  /// The parent's data write GUID in the place of the old one: GUIDs are all of one length.
  fileprivate mutating func recordLinkage(_ linkage: VHDXGuid) throws(EngineError) {
    guard var parent = image.metadata.parent, !parent.linkages.contains(linkage) else { return }
    let item = image.metadataRegion.lowerBound + image.metadata.parentLocator.lowerBound
    let bytes = try file.bytes(at: item, count: image.metadata.parentLocator.count)
    let place = try VHDXParentLocator.place(of: VHDXParentLocator.Key.linkage, in: bytes)
    var text: [UInt8] = []
    for unit in linkage.description.utf16 { text.append(littleEndian: unit) }
    guard let place, place.count == text.count else {
      throw .corrupt("The VHDX parent locator has no whole parent_linkage")
    }
    try pages.write(text, at: item + UInt64(place.lowerBound))
    parent.values[VHDXParentLocator.Key.linkage] = linkage.description
    image.metadata.parent = parent
  }
}
