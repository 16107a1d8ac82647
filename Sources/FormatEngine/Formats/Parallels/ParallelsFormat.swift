/// Expandable images of Parallels and Virtuozzo (docs/interop/parallels.rst), and the bundles that they come in
/// (docs/interop/prl-xml.rst).
public enum ParallelsFormat: ImageFormat {
  public static let name = "parallels"
  public static let supportsBacking = true
  public static let fileRoles: [String] = []
  public static let layerOptions = OptionSchema([])

  public static func probe(_ head: RawSpan, path: String) -> ProbeScore {
    ParallelsHeader.dialect(of: head) == nil ? .none : .certain
  }

  public static func open(_ file: any ByteStore, _ request: LayerRequest) throws(EngineError)
    -> any ImageLayer
  {
    try ParallelsLayer(file: file, header: try ParallelsHeader.read(from: file), request: request)
  }
}
