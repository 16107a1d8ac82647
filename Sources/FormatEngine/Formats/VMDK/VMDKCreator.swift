extension VMDKFormat: CreatableFormat {
  /// `VMDKCreateOptions` looks at it: there is just one.
  public static func checkBackingFormat(_ name: String, isKnown: Bool, hasBacking: Bool) throws(EngineError) {
  }

  public static let supportsCompression = true
  public static let canGrow = false
  public static let recordsIdentity = true
  public static var createOptions: OptionSchema { VMDKCreateOptions.schema }

  public static func create(on file: any ByteStore, _ request: CreateRequest) throws(EngineError) {
    let options = try VMDKCreateOptions(request)
    let descriptor = try newDescriptor(options, request)
    let text = descriptor.text
    if options.subformat == .streamOptimized {
      let stream = try VMDKNewStream(
        byteCount: request.virtualSize, hasZeroedGrains: options.hasZeroedGrains)
      return try stream.write(to: file, descriptor: text)
    }
    if options.subformat.isOneFile {
      let layout = try VMDKNewSparseExtent(
        byteCount: request.virtualSize, hasZeroedGrains: options.hasZeroedGrains)
      try layout.write(to: file, descriptor: text)
      return
    }
    guard text.hostBytes.count <= VMDKDescriptor.maximumByteCount else { throw Self.tooLarge }
    for line in descriptor.extents {
      let store = try request.references.create(line.fileName, for: .extent, namedBy: request.path)
      if options.subformat.isFlat {
        try store.resize(to: line.byteCount)
      } else {
        let layout = try VMDKNewSparseExtent(
          byteCount: line.byteCount, hasZeroedGrains: options.hasZeroedGrains)
        try layout.write(to: store, descriptor: nil)
      }
      try store.flush()
    }
    // The descriptor last: until it is there the file is no image.
    try file.resize(to: 0)
    try file.write(bytes: text.hostBytes, at: 0)
    try file.flush()
  }

  static func newDescriptor(_ options: VMDKCreateOptions, _ request: CreateRequest) throws(EngineError)
    -> VMDKNewDescriptor
  {
    let parentID = try parentContentID(request)
    return VMDKNewDescriptor(
      contentID: try VMDKDescriptor.newContentID(after: nil, digitCount: 8, request.identities).value,
      parentContentID: parentID,
      parentName: request.backing?.name, extents: try newExtents(options, request), options: options,
      virtualSize: request.virtualSize)
  }

  static let tooLarge = EngineError(.tooLarge, "The image size is too large for file format 'vmdk'")

  /// 2 GiB, the largest extent that old file systems take.
  private static let splitByteCount: UInt64 = 2 * GiB

  private static func newExtents(_ options: VMDKCreateOptions, _ request: CreateRequest) throws(EngineError)
    -> [VMDKExtentLine]
  {
    let name = ImageName.lastComponent(of: request.path)
    guard name.utf8.allSatisfy({ $0 >= 0x20 && $0 != UInt8(ascii: "\"") }) else {
      throw .invalid("The name '\(name)' cannot stand in a VMDK descriptor")
    }
    guard !options.subformat.isOneFile else {
      let line = VMDKExtentLine(byteCount: request.virtualSize, kind: "SPARSE", fileName: name)
      return [line]
    }
    // The part of the name after its last dot stays at the end.
    let dot = name.lastIndex(of: ".") ?? name.endIndex
    let (stem, suffix) = (name[..<dot], name[dot...])
    let piece = options.subformat.isSplit ? splitByteCount : max(request.virtualSize, 1)
    let count = request.virtualSize.dividedRoundingUp(by: piece)
    guard count <= UInt64(VMDKExtentLine.maximumCount) else { throw tooLarge }
    return (0..<count).map { index in
      let digits = String(index + 1)
      let number = String(repeating: "0", count: max(0, 3 - digits.count)) + digits
      let part: String =
        switch options.subformat {
        case .monolithicFlat: "-flat"
        case .twoGbMaxExtentFlat: "-f\(number)"
        default: "-s\(number)"
        }
      return VMDKExtentLine(
        byteCount: min(piece, request.virtualSize - index * piece),
        kind: options.subformat.isFlat ? "FLAT" : "SPARSE", fileName: stem + part + suffix)
    }
  }

  /// The content id of the file that the new image is made over.
  private static func parentContentID(_ request: CreateRequest) throws(EngineError) -> UInt32 {
    guard let backing = request.backing else { return VMDKDescriptor.noParent }
    guard !backing.name.utf8.contains(where: { $0 < 0x20 || $0 == UInt8(ascii: "\"") }) else {
      throw .invalid("The name '\(backing.name)' cannot stand in a VMDK descriptor")
    }
    var options = OpenOptions(format: name)
    options.policy = request.references.policy
    options.isForInspection = true
    options.backing = .ignore
    let node = try options.policy.specification(of: backing, namedBy: request.path)
    let parent = try ImageOpener.open(node, options).top
    guard let parent = parent as? VMDKLayer else { throw .invalid("backing_file must be a vmdk image") }
    return parent.contentID
  }
}

/// The text of a new image's descriptor, in the order that VMware has.
struct VMDKNewDescriptor {
  var contentID: UInt32
  var parentContentID: UInt32
  var parentName: String?
  var extents: [VMDKExtentLine]
  var options: VMDKCreateOptions
  var virtualSize: UInt64

  private static let sectorsInTrack: UInt64 = 63

  var text: String {
    let trackBytes = Self.sectorsInTrack * VMDKExtentLine.sectorByteCount
    let cylinders = virtualSize / (trackBytes * options.headCount)
    var lines = [
      "# Disk DescriptorFile", "version=1", "CID=\(Self.digits(contentID))",
      "parentCID=\(Self.digits(parentContentID))", "createType=\"\(options.subformat.rawValue)\"",
    ]
    if let parentName { lines.append("parentFileNameHint=\"\(parentName)\"") }
    lines += ["", "# Extent description"]
    lines += extents.map(\.text)
    lines += [
      "", "# The Disk Data Base", "#DDB", "", "ddb.virtualHWVersion = \"\(options.hardwareVersion)\"",
      "ddb.geometry.cylinders = \"\(cylinders)\"", "ddb.geometry.heads = \"\(options.headCount)\"",
      "ddb.geometry.sectors = \"\(Self.sectorsInTrack)\"", "ddb.adapterType = \"\(options.adapterType)\"",
      "ddb.toolsVersion = \"\(options.toolsVersion)\"", "",
    ]
    return lines.joined(separator: "\n")
  }

  private static func digits(_ value: UInt32) -> String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 8 - digits.count) + digits
  }
}
