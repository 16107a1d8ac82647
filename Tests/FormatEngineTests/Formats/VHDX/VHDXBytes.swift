import TestSupport

@testable import FormatEngine

/// A VHDX image in memory whose structures can be changed one by one, with checksums that are right again.
///
/// Log at 1 MiB, BAT at 2 MiB, metadata at 3 MiB, blocks from 4 MiB on.
struct VHDXBytes {
  var bytes: [UInt8]

  static let bat = 2 << 20
  static let metadata = 3 << 20
  static let blocks = 4 << 20

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  /// An empty disk; a differencing one says that its parent is `parent`.
  init(
    size: Int = 3 << 20, blockSize: Int = 1 << 20, sectorSize: Int = 512, isFixed: Bool = false,
    parent: VHDXParentLocator? = nil
  ) throws {
    let store = MemoryStore()
    try Self.new(size, blockSize, sectorSize, isFixed, parent).write(to: store)
    bytes = store.snapshot
  }

  static func new(
    _ size: Int, _ blockSize: Int, _ sectorSize: Int, _ isFixed: Bool = false,
    _ parent: VHDXParentLocator? = nil
  ) -> VHDXNewImage {
    var metadata = VHDXMetadata(
      blockSize: UInt64(blockSize), leavesBlocksAllocated: isFixed, virtualSize: UInt64(size),
      diskID: VHDXGuid(1, 2, 3, 4), sectorSize: UInt64(sectorSize), physicalSectorSize: 4096)
    metadata.parent = parent
    return VHDXNewImage(metadata: metadata)
  }

  func open(_ access: FileAccess = .readOnly) throws -> ImageChain {
    try ImageChain.over(MemoryStore(bytes), format: VHDXFormat.self, access: access)
  }

  /// Why it is refused, nil where it is not.
  func refusal() -> EngineError? {
    do throws(EngineError) {
      _ = try ImageChain.over(MemoryStore(bytes), format: VHDXFormat.self)
      return nil
    } catch { return error }
  }

  mutating func put<T: FixedWidthInteger>(_ value: T, at offset: Int) {
    var field: [UInt8] = []
    field.append(littleEndian: value)
    bytes.replaceSubrange(offset..<offset + field.count, with: field)
  }

  func number(at offset: Int) -> UInt64 {
    (0..<8).reduce(0) { $0 | UInt64(bytes[offset + $1]) << UInt64(8 * $1) }
  }

  /// Changes a field of both headers, or of both region tables.
  mutating func setHeader<T: FixedWidthInteger>(_ offset: Int, to value: T) {
    for start in [64 << 10, 128 << 10] {
      put(value, at: start + offset)
      seal(start, count: 4096)
    }
  }

  mutating func setRegions<T: FixedWidthInteger>(_ offset: Int, to value: T) {
    for start in [192 << 10, 256 << 10] {
      put(value, at: start + offset)
      seal(start, count: 64 << 10)
    }
  }

  private mutating func seal(_ start: Int, count: Int) {
    var part = Array(bytes[start..<start + count])
    VHDXChecksum.set(in: &part)
    bytes.replaceSubrange(start..<start + count, with: part)
  }

  mutating func setEntry(_ index: Int, _ state: UInt64, mebibyte: UInt64 = 0) {
    put(mebibyte << 20 | state, at: Self.bat + 8 * index)
  }

  func entry(_ index: Int) -> VHDXEntry { VHDXEntry(raw: number(at: Self.bat + 8 * index)) }

  mutating func append(mebibytes: Int, of byte: UInt8) {
    bytes += [UInt8](repeating: byte, count: mebibytes << 20)
  }

  /// The header that counts.
  var header: VHDXHeader {
    get throws { try VHDXHeader.readCurrent(from: MemoryStore(bytes)).0 }
  }
}
