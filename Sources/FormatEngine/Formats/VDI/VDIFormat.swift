/// VirtualBox's own format, version 1.1.
public enum VDIFormat: ImageFormat {
  public static let name = "vdi"
  public static let fileRoles: [String] = []
  public static let layerOptions = OptionSchema([])

  /// By the signature at byte 64 alone, as in QEMU: the text before it is everybody's own.
  public static func probe(_ head: RawSpan, path: String) -> ProbeScore {
    VDIHeader.hasSignature(head) ? .certain : .none
  }

  public static func open(_ file: any ByteStore, _ request: LayerRequest) throws(EngineError)
    -> any ImageLayer
  {
    try VDILayer(file: file, request)
  }
}
