/// A disk as plain bytes.
public enum RawFormat: CreatableFormat {
  public static let name = "raw"
  public static let supportsBacking = false
  public static let supportsCompression = false
  public static let createOptions = OptionSchema([
    .init("size", .size, "Virtual disk size"),
    .init(
      "preallocation", .text, "Preallocation mode (allowed values: off, falloc, full)", isHidden: true),
  ])

  /// Everything can be read as raw, so every other claim wins.
  public static func probe(_ head: RawSpan, path: String) -> ProbeScore { .fallback }

  public static func open(_ file: any ByteStore, _ request: LayerRequest) throws(EngineError)
    -> any ImageLayer
  {
    // Sectors of 512 bytes, as a guest's disk has; the last one is filled up with zeros.
    let byteCount = try file.byteCount()
    return RawLayer(file, virtualSize: byteCount.aligned(upTo: 512))
  }

  public static func create(on file: any ByteStore, _ request: CreateRequest) throws(EngineError) {
    let mode = request.options.text("preallocation") ?? "off"
    guard ["off", "falloc", "full"].contains(mode) else { throw .invalid("invalid parameter value: \(mode)") }
    try file.resize(to: 0)
    try file.resize(to: request.virtualSize)
    if mode != "off" { try (file as? FileStore)?.reserve(at: 0, count: request.virtualSize) }
  }
}
