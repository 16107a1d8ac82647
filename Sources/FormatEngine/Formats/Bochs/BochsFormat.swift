/// The growing disks of the Bochs emulator ("Harddisk Images based on redologs" in its developers' manual).
/// Read only.
public enum BochsFormat: ImageFormat {
  public static let name = "bochs"
  public static let supportsBacking = false
  public static let fileRoles: [String] = []
  public static let layerOptions = OptionSchema([])

  public static func probe(_ head: RawSpan, path: String) -> ProbeScore {
    (try? BochsHeader.isGrowingRedolog(head)) == true ? .certain : .none
  }

  public static func open(_ file: any ByteStore, _ request: LayerRequest) throws(EngineError)
    -> any ImageLayer
  {
    try request.requireReadOnly()
    let bytes = try file.bytes(at: 0, count: BochsHeader.byteCount)
    let header = try bytes.parsed { (span) throws(EngineError) in try BochsHeader.parse(span) }
    return try BochsLayer(file, header)
  }
}
