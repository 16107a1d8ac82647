extension LUKSFormat: CreatableFormat {
  public static let supportsCompression = false
  public static func makesKeys(_ options: OptionValues) -> Bool { true }
  /// As qemu-img does (iotest 282): nobody is to take what is left for an encrypted disk.
  public static let removesFailedFiles = true
  public static let keepsOldBytes = true

  /// In the order in which `create` prints them.
  public static let createOptions = OptionSchema(
    [
      .init("size", .size, "Virtual disk size"),
      .init("key-secret", .text, "ID of the secret that provides the keyslot passphrase"),
    ] + LUKSOptions.options(prefix: "") + [
      .init("detached-header", .flag, "Create a detached LUKS header"),
      .init(
        "preallocation", .text, "Preallocation mode (allowed values: off, falloc, full)", isHidden: true),
    ])

  public static func checkOptions(_ request: CreateRequest) throws(EngineError) {
    _ = try LUKSNewImage(request.options, virtualSize: request.virtualSize)
    _ = try preallocation(request)
  }

  public static func create(on file: any ByteStore, _ request: CreateRequest) throws(EngineError) {
    let image = try LUKSNewImage(request.options, virtualSize: request.virtualSize)
    let passphrase = try image.passphrase(request.secrets)
    try file.resize(to: 0)
    try file.setByteCount(image.byteCount, from: 0, preallocation(request))
    let area = try LUKSArea(store: file, offset: 0, byteCount: image.headerByteCount)
    _ = try LUKSHeader.create(image.luks, for: passphrase, isDetached: image.isDetached, in: area)
    try file.flush()
  }

  private static func preallocation(_ request: CreateRequest) throws(EngineError) -> Preallocation {
    let mode = request.options.text("preallocation") ?? "off"
    guard let preallocation = Preallocation(rawValue: mode) else {
      throw .invalid("invalid parameter value: \(mode)")
    }
    return preallocation
  }
}

extension LUKSFormat: Measurable {
  public static func measure(_ request: MeasureRequest) throws(EngineError) -> Measurement {
    var options = request.options
    // It changes nothing of how many bytes there are in all.
    options.remove("detached-header")
    let image = try LUKSNewImage(options, virtualSize: request.virtualSize)
    _ = try image.passphrase(request.secrets)
    return Measurement(required: image.byteCount, fullyAllocated: image.byteCount)
  }
}

/// What the options ask for.
private struct LUKSNewImage {
  let luks: LUKSOptions
  private let keySecret: String?
  /// The header alone: the disk lies in a file that others make.
  let isDetached: Bool
  /// With the key material.
  let headerByteCount: UInt64
  let byteCount: UInt64

  init(_ options: OptionValues, virtualSize: UInt64) throws(EngineError) {
    luks = try LUKSOptions(options, prefix: "")
    keySecret = options.text("key-secret")
    isDetached = options.flag("detached-header") ?? false
    headerByteCount = LUKSHeader.wholeByteCount(for: luks.suite)
    guard virtualSize <= maximumFileOffset - headerByteCount else {
      throw EngineError(.tooLarge, "The image size is too large for file format 'luks'")
    }
    byteCount = headerByteCount + (isDetached ? 0 : virtualSize)
  }

  func passphrase(_ secrets: SecretStore) throws(EngineError) -> Secret {
    guard let keySecret else { throw .missingKey(option: "key-secret") }
    return try secrets.passphrase(keySecret)
  }
}
