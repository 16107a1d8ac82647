extension Qcow2Format: Measurable {
  public static func measure(_ request: MeasureRequest) throws(EngineError) -> Measurement {
    var options = request.options
    // Neither changes how large the image file is taken to be, so neither is looked at.
    for name in ["data_file", "data_file_raw", "compression_type", "lazy_refcounts"] { options.remove(name) }
    // Only LUKS has a header that takes room.
    if options.text("encrypt.format") != "luks" {
      for option in options.schema.options where option.name.hasPrefix("encrypt") {
        options.remove(option.name)
      }
    }
    var making = CreateRequest(
      path: "", virtualSize: request.virtualSize, options: options, references: ReferenceOpener())
    making.secrets = request.secrets
    let create = try Qcow2CreateOptions(making)
    let image = try Qcow2FullImage(create, virtualSize: request.virtualSize)
    let needed: UInt64
    let isOverlay = request.source != nil && options.isGiven("backing_file")
    if create.preallocation == .full || create.preallocation == .falloc || isOverlay {
      // What lies below an overlay is not looked at: all of the source may differ from it.
      needed = image.guestByteCount
    } else {
      needed = try request.neededByteCount(unit: create.geometry.clusterSize)
    }
    var result = Measurement(
      required: image.byteCount - image.guestByteCount + needed, fullyAllocated: image.byteCount)
    if create.version >= 3, let keeper = request.bitmaps {
      result.bitmaps = Qcow2BitmapDirectory.byteCount(
        try keeper.bitmaps(), virtualSize: keeper.virtualSize, create.geometry)
    }
    return result
  }
}

/// An image in which every cluster of the disk is stored.
private struct Qcow2FullImage {
  /// Of the disk, in whole clusters.
  let guestByteCount: UInt64
  /// With all tables, and the header of the encryption.
  let byteCount: UInt64

  init(_ options: Qcow2CreateOptions, virtualSize: UInt64) throws(EngineError) {
    let geometry = options.geometry
    let size = geometry.clusterSize
    let tooLarge = EngineError(
      .tooLarge, "The image size is too large (try using a larger cluster size)")
    guard virtualSize <= maximumFileOffset - size else { throw tooLarge }
    guestByteCount = virtualSize.aligned(upTo: size)
    let l2Tables = guestByteCount.dividedRoundingUp(by: geometry.l2Coverage)
    guard l2Tables * 8 <= Qcow2Header.maximumL1Bytes else { throw tooLarge }
    let guestClusters = guestByteCount / size
    let l1Clusters = (l2Tables * 8).dividedRoundingUp(by: size)
    let counted = 1 + l1Clusters + l2Tables + guestClusters
    let countsInBlock = (size * 8) >> UInt64(options.refcountOrder)
    // The refcount structure counts itself.
    var structure: UInt64 = 0
    while true {
      let blocks = (counted + structure).dividedRoundingUp(by: countsInBlock)
      let needed = blocks + (blocks * 8).dividedRoundingUp(by: size)
      if needed == structure { break }
      structure = needed
    }
    let header = options.encryption?.headerByteCount ?? 0
    byteCount = (counted + structure) * size + header.aligned(upTo: size)
  }
}
