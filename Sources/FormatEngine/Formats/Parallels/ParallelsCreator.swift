extension ParallelsFormat: CreatableFormat {
  public static let supportsCompression = false
  public static let canGrow = false
  public static let createOptions = OptionSchema([
    .init("size", .size, "Virtual disk size"),
    .init("cluster_size", .size, "Parallels image cluster size", default: "1048576"),
  ])

  /// New images are of the extended dialect. The data area begins at the first cluster behind the BAT, where the
  /// file ends.
  public static func create(on file: any ByteStore, _ request: CreateRequest) throws(EngineError) {
    guard let given = request.options.number("cluster_size"), given < Self.clusterSizeLimit else {
      throw .invalid("Cluster size is too large")
    }
    let clusterSize = given.aligned(upTo: 512)
    let (mostBytes, overflow) = clusterSize.multipliedReportingOverflow(by: 1 << 32)
    guard overflow || request.virtualSize < mostBytes else {
      throw EngineError(.tooLarge, "Image size is too large for this cluster size")
    }
    let entryCount = request.virtualSize.dividedRoundingUp(by: clusterSize)
    let sectorCount = request.virtualSize / 512
    var header = ParallelsHeader(
      dialect: .extended, heads: heads,
      cylinders: UInt32(truncatingIfNeeded: sectorCount / UInt64(heads) / sectorsInTrack),
      clusterSectors: UInt32(clusterSize / 512), entryCount: UInt32(truncatingIfNeeded: entryCount),
      sectorCount: sectorCount, inUse: 0, dataSector: 0, flags: 0, extensionSector: 0)
    // What nobody could open is not made.
    guard entryCount <= ParallelsHeader.maximumEntryCount else {
      throw EngineError(.tooLarge, "Image size is too large for this cluster size")
    }
    guard header.clusterSectors <= ParallelsHeader.maximumClusterSectors else {
      throw .invalid("Cluster size is too large")
    }
    let dataOffset = header.geometry.firstDataOffset
    header.dataSector = UInt32(truncatingIfNeeded: dataOffset / 512)
    try file.resize(to: 0)
    try file.resize(to: dataOffset)
    // The header last: until it is there the file is no image.
    try file.flush()
    try header.write(to: file)
    try file.flush()
  }

  /// QEMU's: 2^31 bytes.
  private static let clusterSizeLimit = UInt64(Int32.max)
  private static let heads: UInt32 = 16
  private static let sectorsInTrack: UInt64 = 32
}
