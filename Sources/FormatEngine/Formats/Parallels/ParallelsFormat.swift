/// Expandable images of Parallels and Virtuozzo (docs/interop/parallels.rst), and the bundles that they come in
/// (docs/interop/prl-xml.rst).
public enum ParallelsFormat: ImageFormat {
  public static let name = "parallels"
  public static let supportsBacking = true
  public static let fileRoles: [String] = []
  public static let layerOptions = OptionSchema([
    .init(ParallelsBundleLayer.guidOption, .text, "Which snapshot of a bundle", changesContent: true)
  ])

  public static func probe(_ head: RawSpan, path: String) -> ProbeScore {
    ParallelsHeader.dialect(of: head) != nil || ParallelsBundle.probe(head) ? .certain : .none
  }

  public static func open(_ file: any ByteStore, _ request: LayerRequest) throws(EngineError)
    -> any ImageLayer
  {
    let count = Int(min(UInt64(FormatCatalog.probedByteCount), try file.byteCount()))
    let isBundle = try file.bytes(at: 0, count: count).parsed { (span) throws(EngineError) in
      ParallelsBundle.probe(span)
    }
    if isBundle { return try ParallelsBundleLayer(try ParallelsBundle.read(from: file), request) }
    guard request.options.isEmpty else {
      throw .invalid("'\(ParallelsBundleLayer.guidOption)' is for the disk descriptor of a bundle")
    }
    return try ParallelsLayer(file: file, header: try ParallelsHeader.read(from: file), request: request)
  }
}
