/// What bitmaps may be. An image that goes beyond is refused, as QEMU does, whose limits these are.
enum Qcow2BitmapLimits {
  /// A backup tool keeps some dozens.
  static let count: UInt32 = 65535
  /// 1 KiB for each of the largest number.
  static let directoryByteCount: UInt64 = 65535 * 1024
  static let nameLength = 1023
  /// 512 bytes to 2 GiB for each bit.
  static let granularityBits: ClosedRange<UInt64> = 9...31
  /// 512 MiB of bits: 64 KiB granules of 256 TiB.
  static let byteCount: UInt64 = 512 * MiB
  static let tableCount: UInt64 = 1 << 27
}

/// The bitmaps extension (qcow2.txt, "Bitmaps extension").
///
///      0 -  3  number of bitmaps       8 - 15  directory size in bytes
///      4 -  7  reserved               16 - 23  directory offset
struct Qcow2BitmapsExtension: Equatable {
  var count: UInt32
  var directoryByteCount: UInt64
  var directoryOffset: UInt64

  static let length = 24

  static func parse(_ content: [UInt8], _ geometry: Qcow2Geometry) throws(EngineError)
    -> Qcow2BitmapsExtension
  {
    guard content.count == length else { throw .corrupt("bitmaps_ext: Invalid extension length") }
    return try content.parsed { (span) throws(EngineError) in
      let result = Qcow2BitmapsExtension(
        count: try span.bigEndian(UInt32.self, at: 0),
        directoryByteCount: try span.bigEndian(UInt64.self, at: 8),
        directoryOffset: try span.bigEndian(UInt64.self, at: 16))
      guard try span.bigEndian(UInt32.self, at: 4) == 0 else {
        throw .corrupt("bitmaps_ext: Reserved field is not zero")
      }
      try result.validate(geometry)
      return result
    }
  }

  private func validate(_ geometry: Qcow2Geometry) throws(EngineError) {
    guard count > 0 else { throw .corrupt("found bitmaps extension with zero bitmaps") }
    guard count <= Qcow2BitmapLimits.count else {
      throw .corrupt(
        "bitmaps_ext: Image has \(count) bitmaps, exceeding the QEMU supported maximum of"
          + " \(Qcow2BitmapLimits.count)")
    }
    guard directoryOffset != 0, directoryOffset.isAligned(to: geometry.clusterSize),
      directoryOffset < maximumFileOffset - Qcow2BitmapLimits.directoryByteCount
    else { throw .corrupt("bitmaps_ext: invalid bitmap directory offset", at: directoryOffset) }
    guard directoryByteCount <= Qcow2BitmapLimits.directoryByteCount else {
      throw .corrupt(
        "bitmaps_ext: bitmap directory size (\(directoryByteCount)) exceeds the maximum supported size"
          + " (\(Qcow2BitmapLimits.directoryByteCount))")
    }
    guard directoryByteCount > 0 else { throw .corrupt("Requested bitmap directory size is zero") }
  }

  func serialised() -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(bigEndian: count)
    bytes.append(bigEndian: UInt32(0))
    bytes.append(bigEndian: directoryByteCount)
    bytes.append(bigEndian: directoryOffset)
    return bytes
  }
}

/// An entry of the bitmap directory (qcow2.txt, "Bitmap directory").
///
///      0 -  7  table offset         16       type, 1: dirty tracking    20 - 23  length of extra data
///      8 - 11  table entries        17       granularity bits           24 -     extra data, then the name,
///     12 - 15  flags                18 - 19  length of name                      then zeros up to 8 bytes
struct Qcow2Bitmap: Equatable, Sendable {
  var tableOffset: UInt64
  var tableCount: UInt32
  var flags: Flags
  var granularityBits: UInt64
  /// Kept as it is.
  var extra: [UInt8] = []
  /// As it stands in the image: perhaps no UTF-8.
  var nameBytes: [UInt8]

  struct Flags: OptionSet, Sendable {
    let rawValue: UInt32
    /// Somebody writes to the disk and did not store the bits yet.
    static let inUse = Flags(rawValue: 1 << 0)
    /// Records what is written.
    static let auto = Flags(rawValue: 1 << 1)
    /// Who does not know the extra data may use the bitmap none the less.
    static let extraDataCompatible = Flags(rawValue: 1 << 2)
    static let known = Flags(rawValue: 7)
  }

  static let fixedLength = 24
  private static let dirtyTracking: UInt8 = 1

  var name: String { String(hostBytes: nameBytes) }
  var isInUse: Bool { flags.contains(.inUse) }
  var isRecording: Bool { flags.contains(.auto) && !isInUse }

  var record: BitmapRecord {
    BitmapRecord(
      name: name, granularity: 1 << granularityBits, isEnabled: flags.contains(.auto),
      isInconsistent: isInUse)
  }

  /// Bytes of all bits of a disk.
  static func byteCount(_ virtualSize: UInt64, granularityBits: UInt64) -> UInt64 {
    virtualSize.dividedRoundingUp(by: 1 << granularityBits).dividedRoundingUp(by: 8)
  }

  /// Entries that the table of a disk has.
  static func tableCount(_ virtualSize: UInt64, granularityBits: UInt64, _ geometry: Qcow2Geometry) -> UInt64
  {
    byteCount(virtualSize, granularityBits: granularityBits).dividedRoundingUp(by: geometry.clusterSize)
  }

  var length: Int { (Self.fixedLength + extra.count + nameBytes.count + 7) & ~7 }

  fileprivate static func parse(_ bytes: RawSpan, at start: Int) throws(EngineError) -> Qcow2Bitmap {
    guard bytes.byteCount - start >= fixedLength else { throw .corrupt("Broken bitmap directory") }
    let nameLength = Int(try bytes.bigEndian(UInt16.self, at: start + 18))
    let extraLength = Int(try bytes.bigEndian(UInt32.self, at: start + 20))
    let extraStart = start + fixedLength
    let nameStart = extraStart + extraLength
    let end = (nameStart + nameLength + 7) & ~7
    guard end <= bytes.byteCount else { throw .corrupt("Broken bitmap directory") }
    let bitmap = Qcow2Bitmap(
      tableOffset: try bytes.bigEndian(UInt64.self, at: start),
      tableCount: try bytes.bigEndian(UInt32.self, at: start + 8),
      flags: Flags(rawValue: try bytes.bigEndian(UInt32.self, at: start + 12)),
      granularityBits: UInt64(try bytes.bigEndian(UInt8.self, at: start + 17)),
      extra: try bytes.bytes(in: extraStart..<nameStart),
      nameBytes: try bytes.bytes(in: nameStart..<nameStart + nameLength))
    guard try bytes.bigEndian(UInt8.self, at: start + 16) == dirtyTracking else {
      throw .corrupt("Bitmap '\(bitmap.name)' doesn't satisfy the constraints")
    }
    return bitmap
  }

  fileprivate func validate(_ header: Qcow2Header) throws(EngineError) {
    let geometry = header.geometry
    let isSound =
      tableCount > 0 && UInt64(tableCount) <= Qcow2BitmapLimits.tableCount
      && UInt64(tableCount) * geometry.clusterSize
        <= Qcow2BitmapLimits.byteCount.aligned(
          upTo: geometry.clusterSize)
      && tableOffset != 0 && tableOffset.isAligned(to: geometry.clusterSize)
      && tableOffset < maximumFileOffset - Qcow2BitmapLimits.byteCount
      && !nameBytes.isEmpty && nameBytes.count <= Qcow2BitmapLimits.nameLength
      && Qcow2BitmapLimits.granularityBits.contains(granularityBits)
      && flags.isSubset(of: .known) && !(extra.isEmpty && flags.contains(.extraDataCompatible))
    guard isSound else { throw .corrupt("Bitmap '\(name)' doesn't satisfy the constraints") }
    // The size of a bitmap in use need not be up to date.
    guard !isInUse else { return }
    let needed = Self.tableCount(header.virtualSize, granularityBits: granularityBits, geometry)
    guard UInt64(tableCount) == needed else {
      throw .corrupt("Could not read bitmap '\(name)' from image: Invalid argument")
    }
  }

  /// Throws where the bitmap has extra data without which it cannot be understood.
  func requireKnownContent() throws(EngineError) {
    guard extra.isEmpty || flags.contains(.extraDataCompatible) else {
      throw .unsupported("Bitmap extra data is not supported")
    }
  }

  /// With the padding at its end.
  func serialised() -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(bigEndian: tableOffset)
    bytes.append(bigEndian: tableCount)
    bytes.append(bigEndian: flags.rawValue)
    bytes.append(Self.dirtyTracking)
    bytes.append(UInt8(truncatingIfNeeded: granularityBits))
    bytes.append(bigEndian: UInt16(truncatingIfNeeded: nameBytes.count))
    bytes.append(bigEndian: UInt32(truncatingIfNeeded: extra.count))
    bytes += extra + nameBytes
    bytes.pad(toMultipleOf: 8)
    return bytes
  }
}

/// All bitmaps of an image, and where their list stands.
struct Qcow2BitmapDirectory: Equatable, Sendable {
  /// Bytes of the list in the file; empty for an image without bitmaps.
  var place: Range<UInt64> = 0..<0
  var bitmaps: [Qcow2Bitmap] = []
  /// By their names, of a list that was read.
  private var indices: [[UInt8]: Int] = [:]

  init(place: Range<UInt64> = 0..<0, bitmaps: [Qcow2Bitmap] = []) {
    self.place = place
    self.bitmaps = bitmaps
  }

  func bitmap(named name: String) -> Qcow2Bitmap? { indices[name.hostBytes].map { bitmaps[$0] } }

  /// Reads the list. None where the image says that a program without a notion of bitmaps may have
  /// written to it: what then stands there is worthless.
  static func read(_ prologue: Qcow2Prologue, from file: any ByteStore) throws(EngineError)
    -> Qcow2BitmapDirectory
  {
    let header = prologue.header
    guard header.autoclearFeatures.contains(.bitmaps),
      let content = prologue.extensions[Qcow2HeaderExtensions.Kind.bitmaps]
    else { return Qcow2BitmapDirectory() }
    let found = try Qcow2BitmapsExtension.parse(content, header.geometry)
    let end = found.directoryOffset + found.directoryByteCount
    guard try end <= file.byteCount().aligned(upTo: header.geometry.clusterSize) else {
      throw .corrupt("Bitmap directory lies past the end of the image file", at: found.directoryOffset)
    }
    let bytes = try file.bytes(at: found.directoryOffset, count: Int(found.directoryByteCount))
    var directory = Qcow2BitmapDirectory(place: found.directoryOffset..<end)
    try directory.parse(bytes, header, count: Int(found.count))
    return directory
  }

  /// The list, nil where it is damaged.
  static func readIfSound(_ prologue: Qcow2Prologue, from file: any ByteStore) throws(EngineError)
    -> Qcow2BitmapDirectory?
  {
    do throws(EngineError) {
      return try read(prologue, from: file)
    } catch {
      guard error.code == .corrupt else { throw error }
      return nil
    }
  }

  private mutating func parse(_ bytes: [UInt8], _ header: Qcow2Header, count: Int) throws(EngineError) {
    var position = 0
    while position < bytes.count {
      guard bitmaps.count < count else {
        throw .corrupt("More bitmaps found than specified in header extension")
      }
      let bitmap = try bytes.parsed { (span) throws(EngineError) in
        try Qcow2Bitmap.parse(span, at: position)
      }
      try bitmap.validate(header)
      guard indices.updateValue(bitmaps.count, forKey: bitmap.nameBytes) == nil else {
        throw .corrupt("Bitmap already exists: \(bitmap.name)")
      }
      position += bitmap.length
      bitmaps.append(bitmap)
    }
    guard bitmaps.count == count else {
      throw .corrupt("Less bitmaps found than specified in header extension")
    }
  }

  /// Throws where a bitmap stands in the way of another size of the disk: an inconsistent one, as with
  /// qemu-img, one with unknown extra data, and one that would be too large.
  func requireResizable(to virtualSize: UInt64) throws(EngineError) {
    for bitmap in bitmaps {
      try BitmapEditor.requireConsistent(bitmap.record)
      try bitmap.requireKnownContent()
      guard virtualSize > 0 else { throw .unsupported("A disk without bytes cannot have bitmaps") }
      let byteCount = Qcow2Bitmap.byteCount(virtualSize, granularityBits: bitmap.granularityBits)
      guard byteCount <= Qcow2BitmapLimits.byteCount else {
        throw EngineError(.tooLarge, "Bitmap '\(bitmap.name)' would need too much space")
      }
    }
  }

  func serialised() -> [UInt8] { bitmaps.flatMap { $0.serialised() } }

  /// Bytes that an image needs for these bitmaps, were all their bits stored: whole clusters.
  static func byteCount(_ bitmaps: [BitmapRecord], virtualSize: UInt64, _ geometry: Qcow2Geometry) -> UInt64 {
    guard !bitmaps.isEmpty else { return 0 }
    var clusters: UInt64 = 0
    var listLength = 0
    for bitmap in bitmaps {
      let bits = UInt64(bitmap.granularity.trailingZeroBitCount)
      let parts = Qcow2Bitmap.tableCount(virtualSize, granularityBits: bits, geometry)
      clusters += parts + (parts * 8).dividedRoundingUp(by: geometry.clusterSize)
      listLength += (Qcow2Bitmap.fixedLength + bitmap.name.hostBytes.count + 7) & ~7
    }
    clusters += UInt64(listLength).dividedRoundingUp(by: geometry.clusterSize)
    return clusters * geometry.clusterSize
  }
}
