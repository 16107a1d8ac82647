import Synchronization
import TestSupport

@testable import FormatEngine

typealias DiskPiece = (offset: UInt64, bytes: [UInt8])

/// A disk of any size that is empty but for some pieces, the later ones over the earlier ones; reads only.
final class PiecedDisk: ByteStore {
  private let size: UInt64
  private let pieces: [DiskPiece]

  private let unreadable: Range<UInt64>
  /// All that was read of it.
  let readByteCount = Atomic<Int>(0)

  init(byteCount: UInt64, _ pieces: [DiskPiece], unreadable: Range<UInt64> = 0..<0) {
    size = byteCount
    self.pieces = pieces
    self.unreadable = unreadable
  }

  func byteCount() throws(EngineError) -> UInt64 { size }
  func allocatedByteCount() throws(EngineError) -> UInt64 { 0 }
  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(EngineError) {
    unsafe buffer.initializeMemory(as: UInt8.self, repeating: 0)
    readByteCount.add(buffer.count, ordering: .relaxed)
    let end = offset + UInt64(buffer.count)
    guard !unreadable.overlaps(offset..<end) else { throw .corrupt("Unreadable") }
    for piece in pieces {
      let pieceEnd = piece.offset + UInt64(piece.bytes.count)
      let (first, last) = (max(offset, piece.offset), min(end, pieceEnd))
      guard first < last else { continue }
      let source = piece.bytes[Int(first - piece.offset)..<Int(last - piece.offset)]
      // SAFETY: `first` and `last` are inside of both.
      unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[Int(first - offset)...]).copyBytes(from: source)
    }
  }
  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(EngineError) {
    throw .invalid("Read-only")
  }
  func writeZeros(at offset: UInt64, count: UInt64, freeing: Bool) throws(EngineError) {
    throw .invalid("Read-only")
  }
  func forget(at offset: UInt64, count: UInt64) {}
  func resize(to byteCount: UInt64) throws(EngineError) { throw .invalid("Read-only") }
  func flush() throws(EngineError) {}
  func run(at offset: UInt64, limit: UInt64) throws(EngineError) -> StoredRun {
    StoredRun(isData: true, length: limit)
  }
  var spliceDescriptor: CInt? { nil }
  var isWritable: Bool { false }
}

/// An entry of an MBR, or of a link in the chain of logical partitions.
struct HandMadeMBREntry {
  var type: UInt8
  var first: UInt32
  var count: UInt32
  var boot: UInt8 = 0

  static let unused = HandMadeMBREntry(type: 0, first: 0, count: 0)
  static let protective = HandMadeMBREntry(type: 0xee, first: 1, count: .max)

  /// A sector with these entries, and the two bytes at its end.
  static func sector(_ entries: [HandMadeMBREntry], signature: UInt32 = 0xabcd_1234) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 440)
    bytes.append(littleEndian: signature)
    bytes.append(littleEndian: UInt16(0))
    for index in 0..<4 {
      let entry = index < entries.count ? entries[index] : .unused
      bytes += [entry.boot, 0, 0, 0, entry.type, 0, 0, 0]
      bytes.append(littleEndian: entry.first)
      bytes.append(littleEndian: entry.count)
    }
    return bytes + [0x55, 0xaa]
  }
}

/// A GUID partition table with any number in any field; checksums are right unless they are asked not to be.
struct HandMadeGPT {
  struct Entry {
    var first: UInt64
    var last: UInt64
    var type: [UInt8] = Array(1...16)
    var name: [UInt16] = []
    var attributes: UInt64 = 0
  }

  var sectorByteCount: UInt64 = 512
  var sectorCount: UInt64
  var entries: [Entry]
  var sector: UInt64 = 1
  var otherSector: UInt64?
  var headerByteCount: UInt32 = 92
  var entryCount: UInt32?
  var entryByteCount: UInt32 = 128
  var entriesSector: UInt64 = 2
  var lastUsable: UInt64?
  var headerChecksumError: UInt32 = 0
  var entriesChecksumError: UInt32 = 0

  var entryBytes: [UInt8] {
    var bytes: [UInt8] = []
    for (index, entry) in entries.enumerated() {
      let end = bytes.count + Int(min(entryByteCount, 8192))
      bytes += entry.type + [UInt8](repeating: UInt8(truncatingIfNeeded: index + 1), count: 16)
      bytes.append(littleEndian: entry.first)
      bytes.append(littleEndian: entry.last)
      bytes.append(littleEndian: entry.attributes)
      for index in 0..<36 { bytes.append(littleEndian: index < entry.name.count ? entry.name[index] : 0) }
      if bytes.count < end { bytes += [UInt8](repeating: 0, count: end - bytes.count) }
    }
    return bytes
  }

  /// A whole sector.
  var header: [UInt8] {
    var bytes = Array("EFI PART".utf8)
    bytes.append(littleEndian: UInt32(0x10000))
    bytes.append(littleEndian: headerByteCount)
    bytes.append(littleEndian: UInt64(0))
    bytes.append(littleEndian: sector)
    bytes.append(littleEndian: otherSector ?? sectorCount - 1)
    bytes.append(littleEndian: UInt64(34))
    bytes.append(littleEndian: lastUsable ?? sectorCount - 34)
    bytes += [UInt8](repeating: 0xd1, count: 16)
    bytes.append(littleEndian: entriesSector)
    bytes.append(littleEndian: entryCount ?? UInt32(entries.count))
    bytes.append(littleEndian: entryByteCount)
    bytes.append(littleEndian: CRC32.checksum(of: entryBytes) ^ entriesChecksumError)
    bytes.pad(toMultipleOf: Int(sectorByteCount))
    let checksum = CRC32.checksum(of: Array(bytes.prefix(Int(headerByteCount)))) ^ headerChecksumError
    for index in 0..<4 { bytes[16 + index] = UInt8(truncatingIfNeeded: checksum >> UInt32(8 * index)) }
    return bytes
  }

  /// Header and entries where they belong.
  var pieces: [DiskPiece] {
    [
      (sector &* sectorByteCount, header),
      (entriesSector.multipliedReportingOverflow(by: sectorByteCount).partialValue, entryBytes),
    ].filter { $0.0 < 1 << 62 }
  }

  /// The same table as a backup in `sector`, with the entries before it.
  func backup(in sector: UInt64) -> HandMadeGPT {
    var copy = self
    (copy.sector, copy.otherSector, copy.entriesSector) = (sector, 1, sector - 8)
    return copy
  }

  static let protectiveMBR: [DiskPiece] = [(0, HandMadeMBREntry.sector([.protective]))]
}

extension PartitionTable {
  /// What is read of a disk that is made of pieces.
  static func read(
    byteCount: UInt64, _ pieces: [DiskPiece], sectorByteCount: UInt64? = nil
  ) throws -> PartitionTable? {
    try read(DiskWindow(PiecedDisk(byteCount: byteCount, pieces)), sectorByteCount: sectorByteCount)
  }

  /// Number, first sector, sectors.
  var places: [[UInt64]] {
    partitions.map { [UInt64($0.number), $0.start / sectorByteCount, $0.byteCount / sectorByteCount] }
  }
}
