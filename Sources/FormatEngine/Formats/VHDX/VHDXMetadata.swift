/// The metadata region: a table of 64 KiB, and the items that it names behind it ([MS-VHDX] 2.6).
///
///      0 -  7  "metadata"             then for each item
///      8 -  9  reserved                0 - 15  GUID
///     10 - 11  item count, at most    16 - 19  offset in the region, 64 KiB at least
///              2047                   20 - 23  length, at most 1 MiB
///     12 - 31  reserved               24 - 27  bit 0: user's, bit 1: of the disk, bit 2: required
///                                     28 - 31  reserved
struct VHDXMetadata: Equatable, Sendable {
  var blockSize: UInt64
  /// Blocks keep their room: a "fixed" image.
  var leavesBlocksAllocated = false
  var virtualSize: UInt64
  var diskID: VHDXGuid
  var sectorSize: UInt64
  var physicalSectorSize: UInt64
  /// Set for differencing disks.
  var parent: VHDXParentLocator?
  /// Where in the region its locator stands.
  var parentLocator: Range<UInt64> = 0..<0
  /// Where in the region the virtual size stands: it is changed in place.
  var virtualSizeOffset: UInt64 = 0

  var geometry: VHDXGeometry {
    VHDXGeometry(
      blockSize: blockSize, sectorSize: sectorSize, virtualSize: virtualSize, hasParent: parent != nil)
  }

  static let tableByteCount = 64 * KiB
  /// The format's own limit.
  static let maximumVirtualSize = 64 * TiB
  static let blockSizes = MiB...256 * MiB
  static let sectorSizes: [UInt64] = [512, 4096]
  private static let signature: UInt64 = 0x6174_6164_6174_656d
  private static let maximumItemCount: UInt16 = 2047
  private static let maximumItemLength: UInt32 = 1 << 20

  private enum ItemID {
    static let fileParameters = VHDXGuid(0xcaa1_6737, 0xfa36, 0x4d43, 0xb3b6_33f0_aa44_e76b)
    static let virtualSize = VHDXGuid(0x2fa5_4224, 0xcd1b, 0x4876, 0xb211_5dbe_d83b_f4b8)
    static let diskID = VHDXGuid(0xbeca_12ab, 0xb2e6, 0x4523, 0x93ef_c309_e000_c746)
    static let sectorSize = VHDXGuid(0x8141_bf1d, 0xa96f, 0x4709, 0xba47_f233_a8fa_ab5f)
    static let physicalSectorSize = VHDXGuid(0xcda3_48c7, 0x445d, 0x4471, 0x9cc9_e988_5251_c556)
    static let parentLocator = VHDXGuid(0xa8d3_5f2d, 0xb30b, 0x454d, 0xabf7_d3d8_4834_ab0c)
    static let all = [fileParameters, virtualSize, diskID, sectorSize, physicalSectorSize, parentLocator]
  }

  private enum ItemFlags {
    static let user: UInt32 = 1
    static let ofDisk: UInt32 = 2
    static let required: UInt32 = 4
  }

  private struct Place {
    var offset: UInt64
    var length: UInt32

    var range: Range<UInt64> { offset..<offset + UInt64(length) }
  }

  // MARK: Reading

  static func read(from file: any ByteStore, in region: Range<UInt64>) throws(EngineError) -> VHDXMetadata {
    let places = try readTable(from: file, in: region)
    func item(_ id: VHDXGuid, _ what: String, atLeast count: UInt32) throws(EngineError) -> [UInt8] {
      guard let place = places[id] else { throw .corrupt("The VHDX metadata has no \(what)") }
      guard place.length >= count else { throw .corrupt("The VHDX \(what) is cut short") }
      return try file.bytes(at: region.lowerBound + place.offset, count: Int(place.length))
    }
    func number<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type, in bytes: [UInt8], at offset: Int = 0)
      throws(EngineError) -> T
    {
      try bytes.parsed { (span) throws(EngineError) in try span.littleEndian(type, at: offset) }
    }
    let parameters = try item(ItemID.fileParameters, "file parameters", atLeast: 8)
    let flags = try number(UInt32.self, in: parameters, at: 4)
    let sectorSize = try number(UInt32.self, in: item(ItemID.sectorSize, "logical sector size", atLeast: 4))
    var metadata = VHDXMetadata(
      blockSize: UInt64(try number(UInt32.self, in: parameters)), leavesBlocksAllocated: flags & 1 != 0,
      virtualSize: try number(UInt64.self, in: item(ItemID.virtualSize, "virtual disk size", atLeast: 8)),
      diskID: .zero, sectorSize: UInt64(sectorSize), physicalSectorSize: UInt64(sectorSize))
    metadata.virtualSizeOffset = places[ItemID.virtualSize]?.offset ?? 0
    if places[ItemID.diskID] != nil {
      metadata.diskID = try item(ItemID.diskID, "disk ID", atLeast: 16).parsed {
        (span) throws(EngineError) in try .parse(span, at: 0)
      }
    }
    if places[ItemID.physicalSectorSize] != nil {
      let bytes = try item(ItemID.physicalSectorSize, "physical sector size", atLeast: 4)
      metadata.physicalSectorSize = UInt64(try number(UInt32.self, in: bytes))
    }
    if flags & 2 != 0 {
      metadata.parent = try .parse(item(ItemID.parentLocator, "parent locator", atLeast: 20))
      metadata.parentLocator = places[ItemID.parentLocator]?.range ?? 0..<0
    }
    try metadata.validate()
    return metadata
  }

  /// Where the known items stand. Unknown ones do no harm unless they say that they are needed.
  private static func readTable(from file: any ByteStore, in region: Range<UInt64>) throws(EngineError)
    -> [VHDXGuid: Place]
  {
    let table = try file.bytes(at: region.lowerBound, count: Int(tableByteCount))
    return try table.parsed { (span) throws(EngineError) in
      guard try span.littleEndian(UInt64.self, at: 0) == signature else {
        throw .corrupt("The VHDX metadata table has no signature")
      }
      let count = try span.littleEndian(UInt16.self, at: 10)
      guard count <= maximumItemCount else {
        throw .corrupt("The VHDX metadata table has \(count) items, more than \(maximumItemCount)")
      }
      var places: [VHDXGuid: Place] = [:]
      for index in 0..<Int(count) {
        let entry = 32 + 32 * index
        let id = try VHDXGuid.parse(span, at: entry)
        let flags = try span.littleEndian(UInt32.self, at: entry + 24)
        // A user's item may have the GUID of another program's.
        guard flags & ItemFlags.user == 0, ItemID.all.contains(id) else {
          guard flags & ItemFlags.required == 0 else {
            throw .unsupported("The image needs VHDX metadata item \(id), which is unknown")
          }
          continue
        }
        let place = Place(
          offset: UInt64(try span.littleEndian(UInt32.self, at: entry + 16)),
          length: try span.littleEndian(UInt32.self, at: entry + 20))
        guard place.offset >= tableByteCount, place.length <= maximumItemLength,
          place.offset + UInt64(place.length) <= region.upperBound - region.lowerBound
        else { throw .corrupt("VHDX metadata item \(id) leaves its region") }
        guard places.updateValue(place, forKey: id) == nil else {
          throw .corrupt("VHDX metadata item \(id) is there twice")
        }
      }
      return places
    }
  }

  /// How long the parent locator may become without meeting another item, known or not, and where in the region its length
  /// stands.
  static func roomForParentLocator(from file: any ByteStore, in region: Range<UInt64>) throws(EngineError)
    -> (byteCount: UInt64, lengthOffset: UInt64)?
  {
    let table = try file.bytes(at: region.lowerBound, count: Int(tableByteCount))
    return try table.parsed { (span) throws(EngineError) in
      var (starts, found): ([UInt64], (start: UInt64, lengthOffset: UInt64)?) = ([], nil)
      for index in 0..<Int(try span.littleEndian(UInt16.self, at: 10)) {
        let entry = 32 + 32 * index
        let start = UInt64(try span.littleEndian(UInt32.self, at: entry + 16))
        let isUsers = try span.littleEndian(UInt32.self, at: entry + 24) & ItemFlags.user != 0
        if !isUsers, try VHDXGuid.parse(span, at: entry) == ItemID.parentLocator {
          found = (start, UInt64(entry + 20))
        } else {
          starts.append(start)
        }
      }
      guard let found else { return nil }
      let end = starts.filter { $0 >= found.start }.min() ?? region.upperBound - region.lowerBound
      return (min(end - found.start, UInt64(maximumItemLength)), found.lengthOffset)
    }
  }

  private func validate() throws(EngineError) {
    guard Self.blockSizes.contains(blockSize), blockSize.nonzeroBitCount == 1 else {
      throw .corrupt("VHDX block size \(blockSize) is no power of two from 1 MiB to 256 MiB")
    }
    guard Self.sectorSizes.contains(sectorSize) else {
      throw .corrupt("VHDX logical sector size \(sectorSize) is neither 512 nor 4096")
    }
    guard Self.sectorSizes.contains(physicalSectorSize) else {
      throw .corrupt("VHDX physical sector size \(physicalSectorSize) is neither 512 nor 4096")
    }
    guard virtualSize <= Self.maximumVirtualSize else {
      throw .corrupt("VHDX virtual disk size \(virtualSize) is more than 64 TiB")
    }
    guard virtualSize.isAligned(to: sectorSize) else {
      throw .corrupt("VHDX virtual disk size \(virtualSize) is not in whole sectors of \(sectorSize) bytes")
    }
  }

  // MARK: Writing

  /// Table and items as a new image has them.
  func serialised() -> [UInt8] {
    var parameters: [UInt8] = []
    parameters.append(littleEndian: UInt32(blockSize))
    parameters.append(littleEndian: UInt32((leavesBlocksAllocated ? 1 : 0) | (parent != nil ? 2 : 0)))
    var size: [UInt8] = []
    size.append(littleEndian: virtualSize)
    var disk: [UInt8] = []
    diskID.append(to: &disk)
    var (logical, physical): ([UInt8], [UInt8]) = ([], [])
    logical.append(littleEndian: UInt32(sectorSize))
    physical.append(littleEndian: UInt32(physicalSectorSize))
    let ofDisk = ItemFlags.ofDisk | ItemFlags.required
    var items: [(id: VHDXGuid, flags: UInt32, bytes: [UInt8])] = [
      (ItemID.fileParameters, ItemFlags.required, parameters), (ItemID.virtualSize, ofDisk, size),
      (ItemID.diskID, ofDisk, disk), (ItemID.sectorSize, ofDisk, logical),
      (ItemID.physicalSectorSize, ofDisk, physical),
    ]
    if let parent { items.append((ItemID.parentLocator, ItemFlags.required, parent.serialised())) }
    var (table, content): ([UInt8], [UInt8]) = ([], [])
    table.append(littleEndian: Self.signature)
    table.append(littleEndian: UInt16(0))
    table.append(littleEndian: UInt16(items.count))
    table.append(contentsOf: repeatElement(0, count: 20))
    for item in items {
      item.id.append(to: &table)
      table.append(littleEndian: UInt32(Int(Self.tableByteCount) + content.count))
      table.append(littleEndian: UInt32(item.bytes.count))
      table.append(littleEndian: item.flags)
      table.append(littleEndian: UInt32(0))
      content += item.bytes
    }
    table.pad(toMultipleOf: Int(Self.tableByteCount))
    return table + content
  }
}
