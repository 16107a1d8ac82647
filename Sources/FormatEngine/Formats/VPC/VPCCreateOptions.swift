/// What the options of a new disk come to.
struct VPCCreateOptions {
  enum Subformat: String {
    case dynamic
    case fixed
  }

  static let schema = OptionSchema([
    .init("size", .size, "Virtual disk size"),
    // Not in QEMU, so not in its list of what the format takes.
    .init("backing_file", .text, "File name of a base image", isHidden: true),
    .init("backing_fmt", .text, "Image format of the base image", isHidden: true),
    .init(
      "subformat", .text,
      "Type of virtual hard disk format. Supported formats are {dynamic (default) | fixed} "),
    .init(
      "force_size", .flag,
      "Force disk size calculation to use the actual size specified, rather than using the nearest CHS-based "
        + "calculation"),
  ])

  let subformat: Subformat
  /// The size is as given, though no geometry may be exactly so large.
  let isExact: Bool
  /// Guest bytes.
  let virtualSize: UInt64
  let geometry: VPCDiskGeometry

  init(_ options: OptionValues, virtualSize wanted: UInt64, isDifferencing: Bool) throws(EngineError) {
    let text = options.text("subformat") ?? Subformat.dynamic.rawValue
    guard let subformat = Subformat(rawValue: text) else {
      throw .invalid("Parameter 'subformat' does not accept value '\(text)'")
    }
    guard subformat == .dynamic || !isDifferencing else {
      throw .invalid("A fixed VHD cannot have a backing file")
    }
    self.subformat = subformat
    // As large as its parent is, whoever made that.
    isExact = options.flag("force_size") == true || isDifferencing
    let sectorCount = wanted.dividedRoundingUp(by: VPCGeometry.sectorSize)
    geometry = isExact ? .largest : VPCDiskGeometry(holding: sectorCount)
    let made = geometry == .largest ? sectorCount : geometry.sectorCount
    guard made <= VPCFooter.maximumSectorCount else {
      throw EngineError(.tooLarge, "The image size is too large for file format '\(VPCFormat.name)'")
    }
    virtualSize = made * VPCGeometry.sectorSize
  }
}
