import FormatEngine
import TestSupport

/// A VDI image as bytes, made field by field: what no program on this host makes.
struct VDIBytes {
  static let free: UInt32 = 0xffff_ffff
  static let zeros: UInt32 = 0xffff_fffe
  var bytes: [UInt8]

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  /// `entries`: the block map. Room number n is filled with the byte `fill + n`.
  init(
    type: UInt32 = 1, blockSize: Int = 4096, extra: Int = 0, entries: [UInt32], rooms: Int? = nil,
    fill: UInt8 = 1,
    diskSize: Int? = nil, id: UInt8 = 0xa1, parent: UInt8 = 0, parentChange: UInt8 = 0, mapRoom: Int = 512
  ) {
    let used = rooms ?? Int(entries.filter { $0 < Self.zeros }.max().map { $0 + 1 } ?? 0)
    let dataOffset = 512 + max(mapRoom, (entries.count * 4 + 511) / 512 * 512)
    bytes = Array("<<< Oracle VM VirtualBox Disk Image >>>\n".utf8)
    bytes += [UInt8](repeating: 0, count: dataOffset - bytes.count)
    for (offset, value) in [
      (64, 0xbeda_107f), (68, 0x10001), (72, 0x190), (76, type), (340, 512), (344, UInt32(dataOffset)),
      (360, 512),
      (376, UInt32(blockSize)), (380, UInt32(extra)), (384, UInt32(entries.count)),
      (388, UInt32(entries.filter { $0 < Self.zeros }.count)),
    ] { set(offset, value) }
    set64(368, UInt64(diskSize ?? entries.count * blockSize))
    setID(392, id)
    setID(408, id &+ 1)
    setID(424, parent)
    setID(440, parentChange)
    for (index, entry) in entries.enumerated() { set(512 + 4 * index, entry) }
    for room in 0..<used {
      bytes += [UInt8](repeating: 0xee, count: extra)
      bytes += [UInt8](repeating: fill &+ UInt8(truncatingIfNeeded: room), count: blockSize)
    }
  }

  mutating func set(_ offset: Int, _ value: UInt32) {
    for index in 0..<4 { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt32(8 * index)) }
  }

  mutating func set64(_ offset: Int, _ value: UInt64) {
    set(offset, UInt32(truncatingIfNeeded: value))
    set(offset + 4, UInt32(truncatingIfNeeded: value >> 32))
  }

  /// A UUID all of whose bytes are the same; 0 stands for none.
  mutating func setID(_ offset: Int, _ byte: UInt8) {
    for index in 0..<16 { bytes[offset + index] = byte }
  }

  func field(_ offset: Int) -> UInt32 {
    (0..<4).reduce(0) { $0 | UInt32(bytes[offset + $1]) << UInt32(8 * $1) }
  }

  var entries: [UInt32] { (0..<Int(field(384))).map { field(Int(field(340)) + 4 * $0) } }

  func with(_ offset: Int, _ value: UInt32) -> VDIBytes {
    var copy = self
    copy.set(offset, value)
    return copy
  }

  /// As `VDIIdentifier` writes a UUID of equal bytes.
  static func text(_ byte: UInt8) -> String {
    let two = String(byte >> 4, radix: 16) + String(byte & 15, radix: 16)
    func group(_ count: Int) -> String { String(repeating: two, count: count) }
    return "{\(group(4))-\(group(2))-\(group(2))-\(group(2))-\(group(6))}"
  }

  func open(_ access: FileAccess = .readOnly) throws -> ImageChain {
    try ImageChain.over(MemoryStore(bytes), format: VDIFormat.self, access: access)
  }
}
