/// The first version of QEMU's own format.
public enum QcowFormat: ImageFormat {
  public static let name = "qcow"
  public static let supportsBacking = true
  public static let fileRoles: [String] = []
  public static let layerOptions = OptionSchema([
    .init("encrypt.format", .text, "Format of the encryption"),
    .init("encrypt.key-secret", .text, "ID of the secret that opens it", changesContent: true),
  ])

  public static func probe(_ head: RawSpan, path: String) -> ProbeScore {
    guard head.byteCount >= QcowHeader.byteCount,
      let magic = try? head.bigEndian(UInt32.self, at: 0), magic == QcowHeader.magic,
      let version = try? head.bigEndian(UInt32.self, at: 4), version == QcowHeader.version
    else { return .none }
    return .certain
  }

  public static func open(_ file: any ByteStore, _ request: LayerRequest) throws(EngineError)
    -> any ImageLayer
  {
    let prologue = try QcowPrologue.read(from: file)
    let cipher = try QcowEncryption.open(prologue.header, request)
    return try QcowLayer(file: file, prologue: prologue, cipher: cipher, isOverlay: request.isOverlay)
  }
}
