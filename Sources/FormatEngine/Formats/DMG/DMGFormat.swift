/// Apple's Universal Disk Image Format as read-only .dmg files have it: a map of chunks, most of them packed.
public enum DMGFormat: ImageFormat {
  public static let name = "dmg"
  public static let supportsBacking = false
  public static let fileRoles: [String] = []
  public static let layerOptions = OptionSchema([])

  /// By the name, as qemu-img: what tells such a file is at its end. Sparse images are claimed to be refused in
  /// words.
  public static func probe(_ head: RawSpan, path: String) -> ProbeScore {
    if path.hasSuffix(".dmg") { return ProbeScore(2) }
    if path.hasSuffix(".sparseimage"), DMGRelative.of(head) != nil { return ProbeScore(2) }
    return .none
  }

  public static func open(_ file: any ByteStore, _ request: LayerRequest) throws(EngineError)
    -> any ImageLayer
  {
    try request.requireReadOnly()
    try DMGRelative.refuse(file)
    let trailer = try DMGTrailer.find(in: file)
    let tables = try DMGMapReader(file: file, trailer: trailer).tables()
    return try DMGLayer(file, trailer, tables)
  }
}

/// Disk images of Apple's that are no UDIF files, or whose UDIF is encrypted.
enum DMGRelative {
  /// What such a file is, by its first bytes.
  static func of(_ head: RawSpan) -> String? {
    if (try? head.bytes(in: 0..<8)) == Array("encrcdsa".utf8) { return "an encrypted disk image" }
    if (try? head.bytes(in: 0..<4)) == Array("sprs".utf8) { return "a sparse disk image" }
    return nil
  }

  static func refuse(_ file: any ByteStore) throws(EngineError) {
    let end = try file.byteCount()
    let head = try file.bytes(at: 0, count: 8)
    var kind = try head.parsed { (span) throws(EngineError) in of(span) }
    // The first version of encrypted images has its header at the end.
    if end >= 8, try file.bytes(at: end - 8, count: 8) == Array("cdsaencr".utf8) {
      kind = "an encrypted disk image"
    }
    if let kind { throw .unsupported("The file is \(kind), which is not supported") }
  }
}
