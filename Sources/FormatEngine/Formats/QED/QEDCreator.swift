extension QEDFormat: CreatableFormat {
  /// A format without a file below is recorded nowhere, and is no error.
  public static func checkBackingFormat(_ name: String, isKnown: Bool, hasBacking: Bool) throws(EngineError) {
    guard isKnown else { throw .invalid("Parameter 'backing-fmt' does not accept value '\(name)'") }
  }

  public static let supportsCompression = false
  /// In the order in which `create` prints them.
  public static let createOptions = OptionSchema([
    .init("size", .size, "Virtual disk size"),
    .init("backing_file", .text, "File name of a base image"),
    .init("backing_fmt", .text, "Image format of the base image"),
    .init("cluster_size", .size, "Cluster size (in bytes)", default: "65536"),
    .init("table_size", .size, "L1/L2 table size (in clusters)"),
  ])

  private static let defaultTableSize: UInt64 = 4

  public static func create(on file: any ByteStore, _ request: CreateRequest) throws(EngineError) {
    var prologue = QEDPrologue(header: try header(request))
    let name = try prologue.setBacking(request.backing, at: UInt32(QEDHeader.byteCount))
    let geometry = prologue.header.geometry
    try file.resize(to: 0)
    // Zeros are an empty L1 table. The header last: until it is there the file is no image.
    try file.resize(to: prologue.header.l1Offset + geometry.tableByteCount)
    try file.write(bytes: name, at: UInt64(QEDHeader.byteCount))
    try file.flush()
    try prologue.header.write(to: file)
  }

  private static func header(_ request: CreateRequest) throws(EngineError) -> QEDHeader {
    let clusterSize = request.options.number("cluster_size") ?? 64 * KiB
    guard clusterSize.nonzeroBitCount == 1, QEDGeometry.clusterSizes.contains(clusterSize) else {
      throw .invalid(
        "QED cluster size must be within range [\(QEDGeometry.clusterSizes.lowerBound), "
          + "\(QEDGeometry.clusterSizes.upperBound)] and power of 2")
    }
    let tableClusters = request.options.number("table_size") ?? defaultTableSize
    guard tableClusters.nonzeroBitCount == 1, QEDGeometry.tableSizes.contains(tableClusters) else {
      throw .invalid(
        "QED table size must be within range [\(QEDGeometry.tableSizes.lowerBound), "
          + "\(QEDGeometry.tableSizes.upperBound)] and power of 2")
    }
    let geometry = QEDGeometry(clusterSize: clusterSize, tableClusters: tableClusters)
    guard geometry.allows(virtualSize: request.virtualSize) else {
      throw .invalid(
        "QED image size must be a non-zero multiple of cluster size and less than "
          + "\(geometry.maximumVirtualSize) bytes")
    }
    return QEDHeader(
      clusterSize: UInt32(clusterSize), tableClusters: UInt32(tableClusters), l1Offset: clusterSize,
      virtualSize: request.virtualSize)
  }
}
