extension QcowFormat: CreatableFormat {
  /// A format without a file below is recorded nowhere, and is no error.
  public static func checkBackingFormat(_ name: String, isKnown: Bool, hasBacking: Bool) throws(EngineError) {
    guard isKnown else { throw .invalid("unrecognized backing format '\(name)'") }
  }

  public static let supportsCompression = true
  /// In the order in which `create` prints them.
  public static let createOptions = OptionSchema([
    .init("size", .size, "Virtual disk size"),
    .init("backing_file", .text, "File name of a base image"),
    .init("backing_fmt", .text, "Format of the backing image"),
    .init(
      "encryption", .flag, "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)"),
    .init("encrypt.format", .text, "Encrypt the image, format choices: 'aes'"),
    .init("encrypt.key-secret", .text, "ID of the secret that provides the AES encryption key"),
  ])

  public static func create(on file: any ByteStore, _ request: CreateRequest) throws(EngineError) {
    let name = (request.backing?.name ?? "").hostBytes
    guard name.count <= QcowHeader.maximumNameLength else { throw .invalid("Backing file name too long") }
    guard request.virtualSize > 0 else { throw .invalid("Image size is too small, cannot be zero length") }
    let isEncrypted = try QcowEncryption.isWanted(request.options, request.secrets)
    // As QEMU: over another image clusters are sectors, so that a write need not copy from below.
    let isOverlay = !name.isEmpty
    var header = QcowHeader(
      virtualSize: request.virtualSize, clusterBits: isOverlay ? 9 : 12, l2Bits: isOverlay ? 12 : 9,
      encryptionMethod: isEncrypted ? QcowHeader.aes : 0,
      l1Offset: UInt64(QcowHeader.byteCount + name.count).aligned(upTo: 8))
    if isOverlay {
      header.backingNameOffset = UInt64(QcowHeader.byteCount)
      header.backingNameLength = UInt32(name.count)
    }
    guard request.virtualSize <= maximumFileOffset - (1 << header.geometry.coverageBits),
      header.l1Count <= QcowHeader.maximumL1Count
    else {
      throw EngineError(.tooLarge, "The image size is too large for file format 'qcow'")
    }
    try file.resize(to: 0)
    // Zeros are an empty L1 table. The header last: until it is there the file is no image.
    try file.resize(to: header.l1Offset + header.l1ByteCount.aligned(upTo: 512))
    try file.write(bytes: name, at: UInt64(QcowHeader.byteCount))
    try file.flush()
    try header.write(to: file)
  }
}
