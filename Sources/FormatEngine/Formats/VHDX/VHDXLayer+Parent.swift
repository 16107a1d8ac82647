extension VHDXLayer: ParentRecording {
  /// The parent's next data write GUID stands here before the parent has it, as a second linkage: whenever the power
  /// fails, the parent is one of the two that are known here. Afterwards there is one again, as [MS-VHDX] has it.
  func recordChange(ofParent parent: any ImageLayer) throws(EngineError) {
    guard let parent = parent as? VHDXLayer else { return }
    // What an earlier commit has left: only one can be announced at a time.
    try recordState(ofParent: parent)
    let next = try parent.state.withLock { (state) throws(EngineError) in
      state.isPreparedToWrite ? nil : try state.planDataWriteGuid()
    }
    guard let next else { return }
    try change { (state) throws(EngineError) in
      try state.recordSecondLinkage(next)
      try state.flush()
    }
    try parent.change { (state) throws(EngineError) in try state.flush() }
    try recordState(ofParent: parent)
  }

  func recordState(ofParent parent: any ImageLayer) throws(EngineError) {
    guard let parent = parent as? VHDXLayer else { return }
    let linkage = parent.state.withLock { $0.headers.header.dataWriteGuid }
    try change { (state) throws(EngineError) in
      try state.recordLinkage(linkage)
      try state.recordSecondLinkage(nil)
      try state.flush()
    }
  }
}

extension VHDXState {
  private var locatorOffset: UInt64 {
    image.metadataRegion.lowerBound + image.metadata.parentLocator.lowerBound
  }

  /// The parent's data write GUID in the place of the old one: GUIDs are all of one length.
  fileprivate mutating func recordLinkage(_ linkage: VHDXGuid) throws(EngineError) {
    let key = VHDXParentLocator.Key.linkage
    guard var parent = image.metadata.parent, parent.values[key].flatMap({ VHDXGuid(text: $0) }) != linkage
    else { return }
    let bytes = try file.bytes(at: locatorOffset, count: image.metadata.parentLocator.count)
    let place = try VHDXParentLocator.place(of: key, in: bytes)
    var text: [UInt8] = []
    for unit in linkage.description.utf16 { text.append(littleEndian: unit) }
    guard let place, place.count == text.count else {
      throw .corrupt("The VHDX parent locator has no whole parent_linkage")
    }
    try pages.write(text, at: locatorOffset + UInt64(place.lowerBound))
    parent.values[key] = linkage.description
    image.metadata.parent = parent
  }

  /// Another possible state of the parent, or none. The whole locator is written anew, with its length, in one log entry.
  /// Where others stand behind it, or have put into it what is not known here, it stays as it is.
  fileprivate mutating func recordSecondLinkage(_ linkage: VHDXGuid?) throws(EngineError) {
    guard var parent = image.metadata.parent else { return }
    let key = VHDXParentLocator.Key.secondLinkage
    guard parent.values[key] != linkage?.description else { return }
    let old = image.metadata.parentLocator
    guard
      try VHDXParentLocator.entryCount(in: file.bytes(at: locatorOffset, count: old.count))
        == parent.values.count
    else { return }
    parent.values[key] = linkage?.description
    let bytes = parent.serialised()
    guard let room = try VHDXMetadata.roomForParentLocator(from: file, in: image.metadataRegion),
      UInt64(bytes.count) <= room.byteCount
    else { return }
    var length: [UInt8] = []
    length.append(littleEndian: UInt32(bytes.count))
    try pages.write(bytes, at: locatorOffset)
    try pages.write(length, at: image.metadataRegion.lowerBound + room.lengthOffset)
    image.metadata.parent = parent
    image.metadata.parentLocator = old.lowerBound..<old.lowerBound + UInt64(bytes.count)
  }
}
