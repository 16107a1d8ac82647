/// QEMU does not measure for VHD; everything that decides is known, though.
extension VPCFormat: Measurable {
  public static func measure(_ request: MeasureRequest) throws(EngineError) -> Measurement {
    let backing = request.options.isGiven("backing_file") ? request.options.text("backing_file") : nil
    let options = try VPCCreateOptions(
      request.options, virtualSize: request.virtualSize, isDifferencing: backing != nil)
    guard options.subformat == .dynamic else {
      let byteCount = options.virtualSize + UInt64(VPCFooter.byteCount)
      return Measurement(required: byteCount, fullyAllocated: byteCount)
    }
    let geometry = VPCGeometry(blockSize: VPCNewDisk.defaultBlockSize, virtualSize: options.virtualSize)
    let footer = try VPCFooter(new: options, isDifferencing: backing != nil)
    let parent = backing.map { VPCNewParent(uniqueID: footer.uniqueID, paths: VPCParentPaths(parent: $0)) }
    let empty = VPCNewDisk(footer, blockSize: geometry.blockSize, parent).byteCount
    let needed =
      try request.neededByteCount(unit: geometry.blockSize).dividedRoundingUp(by: geometry.blockSize)
    return Measurement(
      required: empty + needed * geometry.roomSize,
      fullyAllocated: empty + geometry.blockCount * geometry.roomSize)
  }
}
