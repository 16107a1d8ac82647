/// What `amend` takes after `-o` for a qcow2 image, read and held against the image as it is.
struct Qcow2AmendOptions {
  /// The image's own where it is not to change, as all that follows.
  var version: UInt32
  var virtualSize: UInt64?
  var refcountOrder: UInt32
  var hasLazyRefcounts: Bool
  /// Nil where it is not to change; empty for no name.
  var dataFile: String?
  var isDataFileRaw: Bool

  /// In alphabetical order, as the help lists them.
  static let schema = OptionSchema(
    [
      .init("backing_file", .text, "File name of a base image"),
      .init("backing_fmt", .text, "Image format of the base image"),
      .init("compat", .text, "Compatibility level (v2 [0.10] or v3 [1.1])"),
      .init("data_file", .text, "File name of an external data file"),
      .init("data_file_raw", .flag, "The external data file must stay valid as a raw image"),
    ] + LUKSSlotChange.options(prefix: "encrypt.") + [
      .init("lazy_refcounts", .flag, "Postpone refcount updates"),
      .init("refcount_bits", .number, "Width of a reference count entry in bits"),
      .init("size", .size, "Virtual disk size"),
    ])

  init(_ options: OptionValues, of prologue: Qcow2Prologue) throws(EngineError) {
    let header = prologue.header
    version = try Self.version(options.text("compat")) ?? header.version
    virtualSize = options.number("size")
    hasLazyRefcounts =
      options.flag("lazy_refcounts") ?? header.compatibleFeatures.contains(.lazyRefcounts)
    refcountOrder = try Self.refcountOrder(options) ?? header.refcountOrder
    dataFile = options.text("data_file")
    isDataFileRaw = options.flag("data_file_raw") ?? header.autoclearFeatures.contains(.rawExternalData)

    if dataFile != nil && !header.incompatibleFeatures.contains(.externalDataFile) {
      throw .invalid("data-file can only be set for images that use an external data file")
    }
    if isDataFileRaw && !header.autoclearFeatures.contains(.rawExternalData) {
      throw .invalid("data-file-raw cannot be set on existing images")
    }
    try refuseOtherBacking(options, prologue.backing)
    try validateVersion(options, header)
  }

  /// Nil where it is not given, or empty.
  private static func version(_ text: String?) throws(EngineError) -> UInt32? {
    switch text {
    case nil, "": return nil
    case "1.1", "v3": return 3
    case "0.10", "v2": return 2
    case let text?: throw .invalid("Unknown compatibility level \(text)")
    }
  }

  private static func refcountOrder(_ options: OptionValues) throws(EngineError) -> UInt32? {
    guard let bits = options.number("refcount_bits") else { return nil }
    guard bits.nonzeroBitCount == 1, bits <= 64 else {
      throw .invalid("Refcount width must be a power of two and may not exceed 64 bits")
    }
    return UInt32(bits.trailingZeroBitCount)
  }

  /// What the image has already may be given, both of it.
  private func refuseOtherBacking(_ options: OptionValues, _ backing: BackingReference?) throws(EngineError) {
    guard options.isGiven("backing_file") || options.isGiven("backing_fmt") else { return }
    guard options.text("backing_file") == backing?.name, options.text("backing_fmt") == backing?.format else {
      throw .invalid("Cannot amend the backing file\nYou can use 'qemu-img rebase' instead.")
    }
  }

  private func validateVersion(_ options: OptionValues, _ header: Qcow2Header) throws(EngineError) {
    guard version < 3 else { return }
    if refcountOrder != 4 {
      throw options.isGiven("refcount_bits")
        ? .invalid(
          "Refcount widths other than 16 bits require compatibility level 1.1 or above"
            + " (use compat=1.1 or greater)")
        : .invalid("compat=0.10 requires refcount_bits=16")
    }
    if options.flag("lazy_refcounts") == true {
      throw .invalid(
        "Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)")
    }
  }
}
