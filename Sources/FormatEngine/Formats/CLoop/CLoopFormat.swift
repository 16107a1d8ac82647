/// The compressed loop-back disks of Knoppix and others, "V2.0". Read only.
public enum CLoopFormat: ImageFormat {
  public static let name = "cloop"
  public static let supportsBacking = false
  public static let fileRoles: [String] = []
  public static let layerOptions = OptionSchema([])

  /// As qemu-img: the script that such a file begins with, or as much of it as the head has. Little is claimed,
  /// since the header has no other magic.
  public static func probe(_ head: RawSpan, path: String) -> ProbeScore {
    let magic = CLoopHeader.script
    guard head.byteCount >= magic.count, let start = try? head.bytes(in: 0..<magic.count), start == magic
    else { return .none }
    return ProbeScore(2)
  }

  public static func open(_ file: any ByteStore, _ request: LayerRequest) throws(EngineError)
    -> any ImageLayer
  {
    try request.requireReadOnly()
    let bytes = try file.bytes(at: 0, count: CLoopHeader.byteCount)
    let header = try bytes.parsed { (span) throws(EngineError) in try CLoopHeader.parse(span) }
    try CLoopOffsets(header).check(in: file)
    return CLoopLayer(file, header, fileEnd: try file.byteCount())
  }
}
