import TestSupport

@testable import FormatEngine

/// Puts an expandable image together, byte for byte.
struct ParallelsImage {
  var isExtended = true
  var clusterSectors: UInt32 = 128
  var sectorCount: UInt64 = 4096
  /// Nil: as many as the disk needs.
  var entryCount: UInt32?
  var inUse: UInt32 = 0
  /// Nil: the first cluster behind the BAT.
  var dataSector: UInt32?
  var extensionSector: UInt64 = 0
  /// Host clusters of the data area, by guest cluster.
  var places: [Int: Int] = [:]
  /// Clusters that the file has behind the BAT.
  var storedCount = 0

  var clusterSize: Int { Int(clusterSectors) * 512 }
  private var count: Int {
    Int(entryCount ?? UInt32((sectorCount * 512).dividedRoundingUp(by: UInt64(clusterSize))))
  }
  /// Where the data area begins, in bytes.
  var dataOffset: Int {
    dataSector.map { Int($0) * 512 } ?? (64 + 4 * count + clusterSize - 1) / clusterSize * clusterSize
  }

  func build(_ random: inout SeededRandom) -> [UInt8] {
    var bytes = Array((isExtended ? "WithouFreSpacExt" : "WithoutFreeSpace").utf8)
    for field in [2, 16, 8, clusterSectors, UInt32(count)] { bytes.append(littleEndian: field) }
    bytes.append(littleEndian: sectorCount)
    for field in [inUse, UInt32(dataOffset / 512), 0] { bytes.append(littleEndian: field) }
    bytes.append(littleEndian: extensionSector)
    for index in 0..<count {
      let host = places[index].map { dataOffset + $0 * clusterSize } ?? 0
      bytes.append(littleEndian: UInt32(host / (isExtended ? clusterSize : 512)))
    }
    bytes += [UInt8](repeating: 0, count: dataOffset - bytes.count)
    return bytes + random.bytes(storedCount * clusterSize)
  }

  /// What a guest reads of the file: its clusters where the places say.
  func disk(_ file: [UInt8]) -> [UInt8] {
    var disk = [UInt8](repeating: 0, count: count * clusterSize)
    for (index, place) in places {
      let host = dataOffset + place * clusterSize
      disk.replaceSubrange(
        index * clusterSize..<(index + 1) * clusterSize, with: file[host..<host + clusterSize])
    }
    return Array(disk.prefix(Int(sectorCount) * 512))
  }

  /// Four clusters of 64 KiB, out of order.
  static let small = ParallelsImage(places: [0: 2, 1: 0, 5: 1, 31: 3], storedCount: 4)
}

extension [UInt8] {
  mutating func put(littleEndian value: some FixedWidthInteger, at offset: Int) {
    put(bigEndian: value.byteSwapped, at: offset)
  }
}
