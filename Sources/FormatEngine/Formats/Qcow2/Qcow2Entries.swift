/// An entry of an L1 table (qcow2.txt, "Cluster mapping").
///
///     bit  0 -  8   reserved
///          9 - 55   host offset of the L2 table, 0: none
///         56 - 62   reserved
///              63   set when the table's refcount is exactly one
struct Qcow2L1Entry: Equatable {
  var raw: UInt64

  static let copiedBit: UInt64 = 1 << 63
  static let offsetMask: UInt64 = 0x00ff_ffff_ffff_fe00
  static let reservedMask: UInt64 = 0x7f00_0000_0000_01ff

  init(_ raw: UInt64) { self.raw = raw }

  /// Host offset of the L2 table, 0 where there is none.
  var tableOffset: UInt64 { raw & Self.offsetMask }
  var isCopied: Bool { raw & Self.copiedBit != 0 }
}

/// An entry of an L2 table with its subcluster bitmap (0 without extended entries).
///
///     bit       0   standard cluster: reads as zeros (version 3, no extended entries)
///          9 - 55   standard cluster: host offset
///         0 - x-1   compressed cluster: host offset, x = 62 - (cluster bits - 8)
///         x - 61    compressed cluster: further 512-byte sectors
///              62   compressed
///              63   set when the cluster's refcount is exactly one
///     bitmap 0-31   subcluster is stored;  32-63  subcluster reads as zeros
struct Qcow2L2Entry: Equatable {
  var raw: UInt64
  var bitmap: UInt64

  static let copiedBit: UInt64 = 1 << 63
  static let compressedBit: UInt64 = 1 << 62
  static let zeroBit: UInt64 = 1
  static let offsetMask: UInt64 = 0x00ff_ffff_ffff_fe00
  static let reservedMask: UInt64 = 0x3f00_0000_0000_01fe

  init(_ raw: UInt64, bitmap: UInt64 = 0) {
    self.raw = raw
    self.bitmap = bitmap
  }

  var isCompressed: Bool { raw & Self.compressedBit != 0 }
  var isCopied: Bool { raw & Self.copiedBit != 0 }
  var isZero: Bool { raw & Self.zeroBit != 0 }
  /// Host offset of a standard cluster, 0 where none is allocated.
  var hostOffset: UInt64 { raw & Self.offsetMask }

  /// Subclusters that are stored, one bit each; 0 without extended entries.
  var storedSubclusters: UInt64 { bitmap & 0xffff_ffff }
  /// Subclusters that read as zeros.
  var zeroSubclusters: UInt64 { bitmap >> 32 }

  /// Entry `index` of a table in memory, which must hold it.
  static func load(_ index: UInt64, from table: UnsafeMutableRawBufferPointer, _ geometry: Qcow2Geometry)
    -> Qcow2L2Entry
  {
    let position = Int(index * geometry.entryByteCount)
    // SAFETY: the caller's promise.
    let raw = UInt64(bigEndian: unsafe table.load(fromByteOffset: position, as: UInt64.self))
    guard geometry.hasSubclusters else { return Qcow2L2Entry(raw) }
    let bitmap = UInt64(bigEndian: unsafe table.load(fromByteOffset: position + 8, as: UInt64.self))
    return Qcow2L2Entry(raw, bitmap: bitmap)
  }

  /// Puts it at place `index` of a table in memory, which must have room for it.
  func store(at index: UInt64, in table: UnsafeMutableRawBufferPointer, _ geometry: Qcow2Geometry) {
    let position = Int(index * geometry.entryByteCount)
    // SAFETY: the caller's promise.
    unsafe table.storeBytes(of: raw.bigEndian, toByteOffset: position, as: UInt64.self)
    guard geometry.hasSubclusters else { return }
    unsafe table.storeBytes(of: bitmap.bigEndian, toByteOffset: position + 8, as: UInt64.self)
  }

  /// Where the packed bytes of a compressed cluster are, and how many sectors' worth there may be.
  func packed(_ geometry: Qcow2Geometry) -> (hostOffset: UInt64, byteCount: UInt64) {
    let bits = geometry.compressedOffsetBits
    let offset = raw & ((1 << bits) - 1)
    let furtherSectors = (raw & (Self.compressedBit - 1)) >> bits
    return (offset, (furtherSectors + 1) * 512 - (offset & 511))
  }

  /// The entry of a compressed cluster, or nil where the offset does not fit.
  static func compressed(at hostOffset: UInt64, byteCount: UInt64, _ geometry: Qcow2Geometry) -> Qcow2L2Entry?
  {
    let bits = min(geometry.compressedOffsetBits, 56)
    guard hostOffset >> bits == 0, byteCount > 0 else { return nil }
    let furtherSectors = ((hostOffset + byteCount - 1) >> 9) - (hostOffset >> 9)
    return Qcow2L2Entry(compressedBit | hostOffset | furtherSectors << geometry.compressedOffsetBits)
  }
}
