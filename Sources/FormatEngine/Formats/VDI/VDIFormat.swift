/// VirtualBox's own format, version 1.1.
public enum VDIFormat: ImageFormat {
  public static let name = "vdi"
  public static let fileRoles: [String] = []
  public static let layerOptions = OptionSchema([])

  /// QEMU goes by the signature alone, at byte 64, where a boot sector could have its bytes; the text before it
  /// always begins with three angle brackets.
  public static func probe(_ head: RawSpan, path: String) -> ProbeScore {
    VDIHeader.hasSignature(head) ? .certain : .none
  }

  public static func open(_ file: any ByteStore, _ request: LayerRequest) throws(EngineError)
    -> any ImageLayer
  {
    try VDILayer(file: file, request)
  }
}
