/// A disk as plain bytes.
public enum RawFormat: CreatableFormat {
  public static let name = "raw"
  public static let supportsBacking = false
  public static let fileContent = FileContent.disk
  public static let supportsCompression = false
  public static let keepsOldBytes = true
  public static let createOptions = OptionSchema([
    .init("size", .size, "Virtual disk size"),
    .init(
      "preallocation", .text, "Preallocation mode (allowed values: off, falloc, full)", isHidden: true),
  ])

  /// Everything can be read as raw, so every other claim wins.
  public static func probe(_ head: RawSpan, path: String) -> ProbeScore { .fallback }

  public static let fileRoles: [String] = []
  public static let layerOptions = OptionSchema([
    .init("offset", .size, "Where in the file the disk begins", changesContent: true),
    .init("size", .size, "Bytes of the disk", changesContent: true),
  ])

  public static func open(_ file: any ByteStore, _ request: LayerRequest) throws(EngineError)
    -> any ImageLayer
  {
    // In sectors of 512 bytes, as guests see files; the last one is filled up with zeros.
    let byteCount = try file.byteCount().aligned(upTo: 512)
    var options = OptionValues(layerOptions)
    for (name, text) in request.options { try options.set(name, to: text) }
    let offset = options.number("offset") ?? 0
    guard offset <= byteCount else {
      throw .invalid(
        "Offset (\(offset)) cannot be greater than size of the containing file (\(byteCount))")
    }
    // A disk that is known to be raw may begin with anything.
    let written =
      request.isProbed && request.access == .readWrite
      ? ProbedDiskStore(file, path: request.path) : file
    guard let size = options.number("size") else {
      // Behind an odd offset there may be a part of a sector.
      return RawLayer(
        file, written, from: offset, virtualSize: (byteCount - offset).aligned(upTo: 512))
    }
    guard size <= byteCount - offset else {
      throw .invalid(
        "The sum of offset (\(offset)) and size (\(size)) has to be smaller or equal to the "
          + " actual size of the containing file (\(byteCount))")
    }
    guard size.isAligned(to: 512) else { throw .invalid("Specified size is not multiple of 512") }
    return RawLayer(file, written, from: offset, virtualSize: size, isFixed: true)
  }

  public static func create(on file: any ByteStore, _ request: CreateRequest) throws(EngineError) {
    let mode = request.options.text("preallocation") ?? "off"
    guard let preallocation = Preallocation(rawValue: mode), preallocation != .metadata else {
      throw .invalid("invalid parameter value: \(mode)")
    }
    let isDevice = file.isDevice
    guard preallocation == .off || !isDevice else {
      throw .unsupported("Unsupported preallocation mode '\(mode)'")
    }
    try file.resize(to: 0)
    try file.setByteCount(request.virtualSize, from: 0, preallocation)
    if preallocation != .full, request.virtualSize > 0, !isDevice {
      // As qemu-img does: with a first block that is there, programs find out how direct I/O must be aligned.
      let count = request.virtualSize < 4096 ? 512 : 4096
      try file.write(bytes: [UInt8](repeating: 0, count: count), at: 0)
    }
    // With its name: who made an image and was told so finds it after a power cut.
    try file.flush()
  }
}

extension RawFormat: Measurable {
  public static func measure(_ request: MeasureRequest) throws(EngineError) -> Measurement {
    let byteCount = request.virtualSize.aligned(upTo: 512)
    return Measurement(required: byteCount, fullyAllocated: byteCount)
  }
}
