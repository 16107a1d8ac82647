/// What `create -o` takes, checked.
struct VHDXCreateOptions {
  var logLength: UInt64
  var blockSize: UInt64
  var isFixed: Bool
  var marksZeros: Bool

  static let schema = OptionSchema([
    .init("size", .size, "Virtual disk size; max of 64TB."),
    .init("log_size", .size, "Log size; min 1MB.", default: "1048576"),
    .init(
      "block_size", .size,
      "Block Size; min 1MB, max 256MB. 0 means auto-calculate based on image size.", default: "0"),
    .init(
      "subformat", .text, "VHDX format type, can be either 'dynamic' or 'fixed'. Default is 'dynamic'."),
    .init(
      "block_state_zero", .flag,
      "Force use of payload blocks of type 'ZERO'. Non-standard, but default.  Do not set to 'off' when"
        + " using 'qemu-img convert' with subformat=dynamic."),
    .init("backing_file", .text, "File name of a parent VHDX", isHidden: true),
    .init("backing_fmt", .text, "Image format of the parent, which must be vhdx", isHidden: true),
  ])

  /// `parent`: of a differencing disk, whose blocks the new one takes the size of.
  init(_ options: OptionValues, virtualSize: UInt64, parent: VHDXMetadata?) throws(EngineError) {
    guard virtualSize <= VHDXMetadata.maximumVirtualSize else {
      throw EngineError(.tooLarge, "Image size too large; max of 64TB")
    }
    let log = max(options.number("log_size") ?? MiB, MiB)
    guard log < 4 * GiB, log.aligned(upTo: MiB) < 4 * GiB else {
      throw .invalid("Log size must be smaller than 4 GB")
    }
    logLength = log.aligned(upTo: MiB)
    blockSize = try Self.blockSize(options.number("block_size") ?? 0, virtualSize, parent)
    switch options.text("subformat") ?? "dynamic" {
    case "dynamic": isFixed = false
    case "fixed": isFixed = true
    case let other: throw .invalid("Parameter 'subformat' does not accept value '\(other)'")
    }
    guard !isFixed || parent == nil else { throw .invalid("A VHDX with a parent cannot be fixed") }
    marksZeros = options.flag("block_state_zero") ?? true
  }

  /// Larger disks have larger blocks, as QEMU makes them.
  private static func blockSize(_ given: UInt64, _ virtualSize: UInt64, _ parent: VHDXMetadata?)
    throws(EngineError) -> UInt64
  {
    guard given > 0 else {
      if let parent { return parent.blockSize }
      if virtualSize > 32 * TiB { return 64 * MiB }
      if virtualSize > 100 * GiB { return 32 * MiB }
      return virtualSize > GiB ? 16 * MiB : 8 * MiB
    }
    let size = min(given.dividedRoundingUp(by: MiB), 256) * MiB
    guard size.nonzeroBitCount == 1 else { throw .invalid("Block size must be a power of two") }
    return size
  }
}
