extension VHDXLayer: Emptyable {
  /// Everything is the parent's again, whose present state is recorded: what was taken over into it has changed it.
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
      try state.recordStateOfParent()
      try state.flush()
      try state.cutOffFreeEnd()
    }
  }
}

extension VHDXState {
  /// The parent's data write GUID as it is now, in the place of the old one: GUIDs are all of one length.
  fileprivate mutating func recordStateOfParent() throws(EngineError) {
    guard let parentFile, var parent = image.metadata.parent else { return }
    let linkage = try VHDXHeader.readCurrent(from: parentFile).0.dataWriteGuid
    guard !parent.linkages.contains(linkage) else { return }
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
