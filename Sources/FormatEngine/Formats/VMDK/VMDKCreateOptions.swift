/// What `create -f vmdk` takes after `-o`, read and checked.
struct VMDKCreateOptions {
  /// How the disk is laid out.
  enum Subformat: String {
    case monolithicSparse
    case monolithicFlat
    case twoGbMaxExtentSparse
    case twoGbMaxExtentFlat
    case streamOptimized

    var isFlat: Bool { self == .monolithicFlat || self == .twoGbMaxExtentFlat }
    var isSplit: Bool { self == .twoGbMaxExtentFlat || self == .twoGbMaxExtentSparse }
    /// The descriptor is in the one file.
    var isOneFile: Bool { self == .monolithicSparse || self == .streamOptimized }
  }

  var subformat: Subformat
  var adapterType: String
  var hardwareVersion: String
  var toolsVersion: String
  var hasZeroedGrains: Bool

  /// In the order in which `create` prints them.
  static let schema = OptionSchema([
    .init("size", .size, "Virtual disk size"),
    .init(
      "adapter_type", .text,
      "Virtual adapter type, can be one of ide (default), lsilogic, buslogic or legacyESX"),
    .init("backing_file", .text, "File name of a base image"),
    .init("backing_fmt", .text, "Must be 'vmdk' if present"),
    .init("compat6", .flag, "VMDK version 6 image", default: "off"),
    .init("hwversion", .text, "VMDK hardware version", default: "undefined"),
    .init("toolsversion", .text, "VMware guest tools version"),
    .init(
      "subformat", .text,
      "VMDK flat extent format, can be one of {monolithicSparse (default) | monolithicFlat |"
        + " twoGbMaxExtentSparse | twoGbMaxExtentFlat | streamOptimized} "),
    .init("zeroed_grain", .flag, "Enable efficient zero writes using the zeroed-grain GTE feature"),
  ])

  init(_ request: CreateRequest) throws(EngineError) {
    let options = request.options
    let version = options.text("hwversion") ?? "undefined"
    if options.flag("compat6") == true {
      guard version == "undefined" else { throw .invalid("compat6 cannot be enabled with hwversion set") }
      hardwareVersion = "6"
    } else {
      hardwareVersion = version == "undefined" ? "4" : version
    }
    guard options.text("backing_fmt") ?? VMDKFormat.name == VMDKFormat.name else {
      throw .invalid("backing_file must be a vmdk image")
    }
    adapterType = options.text("adapter_type") ?? "ide"
    guard ["ide", "buslogic", "lsilogic", "legacyESX"].contains(adapterType) else {
      throw .invalid("invalid parameter value: \(adapterType)")
    }
    let layout = options.text("subformat") ?? Subformat.monolithicSparse.rawValue
    guard let subformat = Subformat(rawValue: layout) else {
      throw .invalid("invalid parameter value: \(layout)")
    }
    self.subformat = subformat
    toolsVersion = options.text("toolsversion") ?? "2147483647"
    for text in [hardwareVersion, toolsVersion] {
      guard text.utf8.allSatisfy({ $0 >= 0x20 && $0 != UInt8(ascii: "\"") }) else {
        throw .invalid("'\(text)' cannot stand in a VMDK descriptor")
      }
    }
    hasZeroedGrains = options.flag("zeroed_grain") ?? false
    guard !subformat.isFlat || request.backing == nil else {
      throw .invalid("Flat image can't have backing file")
    }
    guard !subformat.isFlat || !hasZeroedGrains else {
      throw .invalid("Flat image can't enable zeroed grain")
    }
  }

  /// VMware's adapters have 16 heads on IDE and 255 elsewhere.
  var headCount: UInt64 { adapterType == "ide" ? 16 : 255 }
}
