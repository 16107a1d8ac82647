extension VDIFormat: CreatableFormat {
  /// QEMU knows no parents. Ours are told by their UUIDs: the new image does not keep a name.
  public static let supportsBacking = true
  public static let supportsCompression = false
  public static let recordsIdentity = true
  public static let createOptions = OptionSchema([
    .init("size", .size, "Virtual disk size"),
    .init("static", .flag, "VDI static (pre-allocated) image", default: "off"),
    .init("backing_file", .text, "File name of a base image", isHidden: true, isUnlisted: true),
    .init("backing_fmt", .text, "Image format of the base image", isHidden: true, isUnlisted: true),
    // Of the file, which is empty when it is made: it changes nothing here, as in QEMU.
    .init(
      "preallocation", .text, "Preallocation mode (allowed values: off, falloc, full)", isHidden: true),
  ])

  public static func create(on file: any ByteStore, _ request: CreateRequest) throws(EngineError) {
    let isStatic = request.options.flag("static") ?? false
    if let mode = request.options.text("preallocation"), !["off", "falloc", "full"].contains(mode) {
      throw .invalid(
        mode == "metadata" ? "Unsupported preallocation mode: metadata" : "invalid parameter value: \(mode)")
    }
    let type: VDIImageType = request.backing != nil ? .differencing : isStatic ? .fixed : .dynamic
    var header = try VDIHeader(new: type, virtualSize: request.virtualSize, request.identities)
    if let backing = request.backing {
      guard !isStatic else { throw .invalid("A static image has no backing file") }
      header.setParent(try VDIParentFinder.parent(backing, request.references, namedBy: request.path))
    }
    try file.resize(to: 0)
    try writeMap(of: header, to: file)
    // The header last: until it is there the file is no image.
    try file.flush()
    try file.write(bytes: header.newSector(), at: 0)
    try file.flush()
  }

  private static func writeMap(of header: VDIHeader, to file: any ByteStore) throws(EngineError) {
    let count = header.blockCount
    let isFixed = header.type == VDIImageType.fixed.rawValue
    let pieceCount: UInt32 = 65536
    var first: UInt32 = 0
    while first < count {
      let last = min(count, first + pieceCount)
      var entries: [UInt8] = []
      entries.reserveCapacity(Int(last - first) * 4 + 512)
      for index in first..<last { entries.append(littleEndian: isFixed ? index : VDIEntry.free.raw) }
      entries.pad(toMultipleOf: 512)
      try file.write(bytes: entries, at: UInt64(header.mapOffset) + UInt64(first) * 4)
      first = last
    }
    if isFixed { try file.resize(to: UInt64(header.dataOffset) + UInt64(count) * UInt64(header.blockSize)) }
  }
}

extension VDIHeader {
  /// Of an image without a parent that holds nothing yet.
  init(new type: VDIImageType, virtualSize: UInt64, _ identities: IdentitySource = .unique)
    throws(EngineError)
  {
    guard virtualSize <= Self.maximumVirtualSize else {
      throw .unsupported(
        "Unsupported VDI image size (size is 0x\(String(virtualSize, radix: 16)), max supported is "
          + "0x\(String(Self.maximumVirtualSize, radix: 16)))")
    }
    let count = virtualSize.dividedRoundingUp(by: Self.defaultBlockSize)
    self.init(
      version: Self.version, type: type.rawValue, mapOffset: UInt32(Self.byteCount),
      dataOffset: UInt32(UInt64(Self.byteCount) + (count * 4).aligned(upTo: 512)), sectorSize: 512,
      diskSize: virtualSize, blockSize: UInt32(Self.defaultBlockSize), blockExtra: 0,
      blockCount: UInt32(count),
      allocatedBlockCount: type == .fixed ? UInt32(count) : 0, identifier: try .new(identities, for: "disk"),
      modification: try .new(identities, for: "modification"), parent: .none, parentModification: .none)
  }

  mutating func setParent(_ parent: VDIHeader) {
    self.parent = parent.identifier
    parentModification = parent.modification
  }

  /// The first sector of a new image.
  func newSector() -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: Self.byteCount)
    // QEMU's line, which its programs look for; VirtualBox looks for none.
    bytes.replaceSubrange(0..<Self.introduction.count, with: Self.introduction)
    bytes.put(bigEndian: Self.signature.byteSwapped, at: 64)
    bytes.put(bigEndian: Self.writtenLength.byteSwapped, at: 72)
    put(into: &bytes)
    return bytes
  }

  private static let introduction = Array("<<< QEMU VM Virtual Disk Image >>>\n".utf8)
  /// The header without the geometry for BIOSes, which VirtualBox then computes.
  private static let writtenLength: UInt32 = 0x180
}

extension VDIParentFinder {
  /// The header of the file over which a differencing image is made.
  static func parent(_ backing: BackingReference, _ references: ReferenceOpener, namedBy path: String)
    throws(EngineError) -> VDIHeader
  {
    guard backing.format == nil || backing.format == VDIFormat.name else {
      throw .unsupported("The backing file of a VDI image must be a VDI image, which has a UUID")
    }
    let header = try header(of: backing.name, references, namedBy: path)
    guard !header.identifier.isNone else {
      throw .unsupported("'\(backing.name)' has no UUID, by which differencing images could tell it")
    }
    return header
  }
}

extension VDIFormat: Measurable {
  /// QEMU cannot tell for this format. The block is the unit, and nothing else grows with the data.
  public static func measure(_ request: MeasureRequest) throws(EngineError) -> Measurement {
    let isStatic = request.options.flag("static") ?? false
    let header = try VDIHeader(new: isStatic ? .fixed : .dynamic, virtualSize: request.virtualSize)
    let start = UInt64(header.dataOffset)
    let full = start + UInt64(header.blockCount) * VDIHeader.defaultBlockSize
    let needed = try request.neededByteCount(unit: VDIHeader.defaultBlockSize)
    return Measurement(required: isStatic ? full : min(start + needed, full), fullyAllocated: full)
  }
}
