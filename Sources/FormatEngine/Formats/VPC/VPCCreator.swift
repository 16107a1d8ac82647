extension VPCFormat: CreatableFormat {
  public static let supportsCompression = false
  public static let recordsIdentity = true
  public static var createOptions: OptionSchema { VPCCreateOptions.schema }

  public static func create(on file: any ByteStore, _ request: CreateRequest) throws(EngineError) {
    let options = try VPCCreateOptions(
      request.options, virtualSize: request.virtualSize, isDifferencing: request.backing != nil)
    let parent = try request.backing.map { (backing) throws(EngineError) in
      try VPCNewParent(backing, request)
    }
    var footer = try VPCFooter(new: options, isDifferencing: parent != nil, request.identities)
    if options.subformat == .fixed {
      footer.headerOffset = VPCFooter.noHeader
      return try createFixed(on: file, footer)
    }
    try VPCNewDisk(footer, blockSize: VPCNewDisk.defaultBlockSize, parent).write(to: file)
  }

  private static func createFixed(on file: any ByteStore, _ footer: VPCFooter) throws(EngineError) {
    let byteCount = footer.currentSize
    try file.resize(to: 0)
    try file.resize(to: byteCount)
    if byteCount > 0 {
      // As for raw disks: with a first block that is there, programs find out how direct I/O must be aligned.
      try file.write(bytes: [UInt8](repeating: 0, count: byteCount < 4096 ? 512 : 4096), at: 0)
    }
    try file.write(bytes: footer.bytes, at: byteCount)
    try file.flush()
  }
}

extension VPCFooter {
  /// Of a disk that is made now.
  init(new options: VPCCreateOptions, isDifferencing: Bool, _ identities: IdentitySource = .unique)
    throws(EngineError)
  {
    let age = max(identities.now.seconds - Self.epoch, 0)
    self.init(
      features: 2, version: 0x1_0000, headerOffset: UInt64(Self.byteCount),
      timeStamp: UInt32(truncatingIfNeeded: age),
      creator: options.isExact ? Self.exactCreator : Self.roundedCreator, creatorVersion: 0x5_0003,
      creatorHost: Array("Wi2k".utf8), originalSize: options.virtualSize, currentSize: options.virtualSize,
      geometry: options.geometry,
      type: isDifferencing ? .differencing : options.subformat == .fixed ? .fixed : .dynamic,
      uniqueID: try Self.newID(identities), savedState: 0)
  }

  /// A new UUID (RFC 9562, version 4).
  private static func newID(_ identities: IdentitySource) throws(EngineError) -> [UInt8] {
    var bytes = try identities.bytes(for: "disk")
    bytes[6] = bytes[6] & 0x0f | 0x40
    bytes[8] = bytes[8] & 0x3f | 0x80
    return bytes
  }
}

/// The disk that a new differencing disk is made over.
struct VPCNewParent {
  let uniqueID: [UInt8]
  let paths: VPCParentPaths

  init(uniqueID: [UInt8], paths: VPCParentPaths) {
    self.uniqueID = uniqueID
    self.paths = paths
  }

  /// The parent has to be there: its id is what the disk knows it by.
  init(_ backing: BackingReference, _ request: CreateRequest) throws(EngineError) {
    guard backing.format == nil || backing.format == VPCFormat.name else {
      throw .invalid(
        "A VHD can only have a VHD as its backing file, not one of the format '\(backing.format ?? "")'")
    }
    let name = try ImageName.plainPath(backing.name)
    guard !name.utf8.contains(UInt8(ascii: "\\")) else {
      throw .unsupported("A VHD cannot record the name '\(name)': a backslash separates folders in it")
    }
    let file = try request.references.open(name, for: .parent, namedBy: request.path, access: .readOnly)
    uniqueID = try VPCPrologue(file, forcedRule: nil).footer.uniqueID
    paths = VPCParentPaths(parent: name)
    guard paths.locatorBytes.count <= Int(VPCParentLocator.maximumPathByteCount) else {
      throw EngineError(.tooLarge, "Backing file name too long")
    }
  }
}

/// An empty dynamic or differencing disk, laid out:
///
///     footer's copy, dynamic disk header, the parent's path (where there is one), table, footer
struct VPCNewDisk {
  static let defaultBlockSize = 2 * MiB
  /// Room for a parent's path.
  private static let pathRoom = 4 * KiB

  private let footer: VPCFooter
  private let header: VPCDynamicHeader
  private let path: (bytes: [UInt8], hostOffset: UInt64)?
  private let tableByteCount: UInt64

  init(_ footer: VPCFooter, blockSize: UInt64, _ parent: VPCNewParent?) {
    self.footer = footer
    let count = footer.currentSize.dividedRoundingUp(by: blockSize)
    var header = VPCDynamicHeader(
      tableOffset: UInt64(VPCFooter.byteCount + VPCDynamicHeader.byteCount), version: 0x1_0000,
      entryCount: UInt32(count), blockSize: UInt32(blockSize),
      parentID: parent?.uniqueID ?? [UInt8](repeating: 0, count: 16), parentTimeStamp: 0, parentName: [],
      locators: [])
    path = parent.map { parent in
      let start = header.tableOffset.aligned(upTo: Self.pathRoom)
      let bytes = parent.paths.locatorBytes
      let room = max(Self.pathRoom, UInt64(bytes.count).aligned(upTo: Self.pathRoom))
      header.locators = [parent.paths.locator(at: start, room: room)]
      header.parentName = parent.paths.headerName
      header.tableOffset = start + room
      return (bytes, start)
    }
    self.header = header
    tableByteCount = Self.tableByteCount(entries: count)
  }

  /// Of a table with so many entries, in whole sectors.
  static func tableByteCount(entries: UInt64) -> UInt64 {
    (entries * 4).aligned(upTo: VPCGeometry.sectorSize)
  }

  /// Bytes of the file.
  var byteCount: UInt64 { header.tableOffset + tableByteCount + UInt64(VPCFooter.byteCount) }

  /// The copy of the footer at the start comes last: without it the file is no image.
  func write(to file: any ByteStore) throws(EngineError) {
    try file.resize(to: 0)
    try VPCTableFill.write(to: file, from: header.tableOffset, to: header.tableOffset + tableByteCount)
    if let path { try file.write(bytes: path.bytes, at: path.hostOffset) }
    try file.write(bytes: header.bytes, at: footer.headerOffset)
    try file.write(bytes: footer.bytes, at: header.tableOffset + tableByteCount)
    try file.flush()
    try file.write(bytes: footer.bytes, at: 0)
    try file.flush()
  }
}

/// Entries of blocks that are not there.
enum VPCTableFill {
  static func write(to file: any ByteStore, from start: UInt64, to end: UInt64) throws(EngineError) {
    var position = start
    while position < end {
      let count = min(end - position, MiB)
      try file.write(bytes: [UInt8](repeating: 0xff, count: Int(count)), at: position)
      position += count
    }
  }
}
