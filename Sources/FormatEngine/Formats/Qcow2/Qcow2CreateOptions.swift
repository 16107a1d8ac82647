/// What `create -f qcow2` takes after `-o`, read and checked.
struct Qcow2CreateOptions {
  var version: UInt32
  var geometry: Qcow2Geometry
  var refcountOrder: UInt32
  var hasLazyRefcounts: Bool
  var compression: Qcow2ClusterCodec.Method
  var dataFile: String?
  var isDataFileRaw: Bool
  var preallocation: Preallocation
  var encryption: Qcow2NewEncryption?

  /// In the order in which `create` prints them.
  static let schema = OptionSchema(
    [
      .init(
        "encryption", .flag,
        "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)"),
      .init("encrypt.format", .text, "Encrypt the image, format choices: 'aes', 'luks'"),
      .init("encrypt.key-secret", .text, "ID of secret providing qcow AES key or LUKS passphrase"),
    ] + LUKSOptions.options(prefix: "encrypt.") + [
      .init("cluster_size", .size, "qcow2 cluster size", default: "65536"),
      .init("extended_l2", .flag, "Extended L2 tables", default: "off"),
      .init("preallocation", .text, "Preallocation mode (allowed values: off, metadata, falloc, full)"),
      .init(
        "compression_type", .text, "Compression method used for image cluster compression", default: "zlib"),
      .init("size", .size, "Virtual disk size"),
      .init("compat", .text, "Compatibility level (v2 [0.10] or v3 [1.1])"),
      .init("data_file", .text, "File name of an external data file"),
      .init("data_file_raw", .flag, "The external data file must stay valid as a raw image"),
      .init("backing_file", .text, "File name of a base image"),
      .init("backing_fmt", .text, "Image format of the base image"),
      .init("lazy_refcounts", .flag, "Postpone refcount updates", default: "off"),
      .init("refcount_bits", .number, "Width of a reference count entry in bits", default: "16"),
    ])

  init(_ request: CreateRequest) throws(EngineError) {
    let options = request.options
    version = try Self.version(options.text("compat"))
    hasLazyRefcounts = options.flag("lazy_refcounts") ?? false
    dataFile = options.text("data_file")
    isDataFileRaw = options.flag("data_file_raw") ?? false
    preallocation = try Self.choice(
      "preallocation", options.text("preallocation") ?? "off", Preallocation.init)
    compression = try Self.compression(options.text("compression_type") ?? "zlib")
    let clusterSize = options.number("cluster_size") ?? 64 * KiB
    guard clusterSize.nonzeroBitCount == 1, (512...2 * MiB).contains(clusterSize) else {
      throw .invalid("Cluster size must be a power of two between 512 and 2048k")
    }
    geometry = Qcow2Geometry(
      clusterBits: UInt64(clusterSize.trailingZeroBitCount),
      hasSubclusters: options.flag("extended_l2") ?? false)
    let bits = options.number("refcount_bits") ?? 16
    guard bits.nonzeroBitCount == 1, bits <= 64 else {
      throw .invalid("Refcount width must be a power of two and may not exceed 64 bits")
    }
    refcountOrder = UInt32(bits.trailingZeroBitCount)
    encryption = try Qcow2NewEncryption(options, request.secrets)
    try validate(hasBacking: request.backing != nil)
    // The raw file is the disk, also one that `amend` names later: the tables have to lead to all of it.
    if isDataFileRaw && preallocation == .off { preallocation = .metadata }
  }

  private static func version(_ text: String?) throws(EngineError) -> UInt32 {
    switch text {
    case nil, "1.1", "v3": return 3
    case "0.10", "v2": return 2
    case let text?: throw .invalid("Parameter 'version' does not accept value '\(text)'")
    }
  }

  private static func compression(_ text: String) throws(EngineError) -> Qcow2ClusterCodec.Method {
    switch text {
    case "zlib": return .deflate
    case "zstd": return .zstandard
    default: throw .invalid("Parameter 'compression-type' does not accept value '\(text)'")
    }
  }

  private static func choice<T>(_ name: String, _ text: String, _ parse: (String) -> T?) throws(EngineError)
    -> T
  {
    guard let value = parse(text) else {
      throw .invalid("Parameter '\(name)' does not accept value '\(text)'")
    }
    return value
  }

  /// Room that is set aside in an encrypted image does not read as zeros, and version 2 cannot mark it so.
  static let oldEncryptedPreallocation = EngineError.unsupported(
    "Preallocation of an encrypted image requires compatibility level 1.1 or above (use version=v3 or greater)"
  )

  private func validate(hasBacking: Bool) throws(EngineError) {
    let isOld = version < 3
    func needsVersion3(_ what: String, _ join: String = "and") -> EngineError {
      .invalid("\(what) compatibility level 1.1 \(join) above (use version=v3 or greater)")
    }
    if isOld && encryption != nil && preallocation != .off { throw Self.oldEncryptedPreallocation }
    if isOld && dataFile != nil {
      throw needsVersion3("External data files are only supported with")
    }
    guard dataFile != nil || !isDataFileRaw else { throw .invalid("data-file-raw requires data-file") }
    if hasBacking && isDataFileRaw {
      throw .invalid("Backing file and data-file-raw cannot be used at the same time")
    }
    if isOld && refcountOrder != 4 {
      throw needsVersion3("Different refcount widths than 16 bits require", "or")
    }
    if isOld && hasLazyRefcounts { throw needsVersion3("Lazy refcounts only supported with") }
    if isOld && compression != .deflate {
      throw needsVersion3("Non-zlib compression type is only supported with")
    }
    if geometry.hasSubclusters {
      if isOld { throw needsVersion3("Extended L2 entries are only supported with") }
      guard geometry.clusterSize >= 16 * KiB else {
        throw .invalid("Extended L2 entries are only supported with cluster sizes of at least 16384 bytes")
      }
    }
    if hasBacking && preallocation != .off && !geometry.hasSubclusters {
      throw .invalid(
        "Backing file and preallocation can only be used at the same time if extended_l2 is enabled")
    }
  }
}
