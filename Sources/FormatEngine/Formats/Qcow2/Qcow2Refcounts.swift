/// Reference counts of host clusters: a table of blocks of counts (qcow2.txt, "Host cluster management").
/// Lives in its layer's lock.
final class Qcow2Refcounts {
  let table: ResidentTable
  let blocks: TableCache
  let clusterBits: UInt64
  /// Width of a count is 1 << order bits, 0 to 6.
  let order: UInt64

  /// `cacheByteCount`: blocks that are held at once.
  init(
    _ header: Qcow2Header, file: any ByteStore, order writeOrder: WriteOrder?,
    cacheByteCount: UInt64 = Qcow2CacheSizes.usual.refcounts
  ) throws(EngineError) {
    let geometry = header.geometry
    clusterBits = geometry.clusterBits
    order = UInt64(header.refcountOrder)
    let count = UInt64(header.refcountTableClusters) * geometry.clusterSize / 8
    table = try ResidentTable(store: file, hostOffset: header.refcountTableOffset, count: Int(count))
    let used = try file.byteCount().dividedRoundingUp(by: geometry.clusterSize)
    let wanted =
      (used.dividedRoundingUp(by: 1 << (clusterBits + 3 - UInt64(header.refcountOrder))) + 8)
      * geometry.clusterSize
    blocks = TableCache(
      store: file, order: writeOrder, sliceByteCount: Int(min(geometry.clusterSize, 4096)),
      capacity: min(wanted, cacheByteCount))
  }

  /// A structure that is in no file yet: no block, room for `tableCount` entries.
  init(
    clusterBits: UInt64, order: UInt64, tableCount: Int, file: any ByteStore, writeOrder: WriteOrder
  ) {
    self.clusterBits = clusterBits
    self.order = order
    table = ResidentTable(store: file, hostOffset: 0, values: Array(repeating: 0, count: tableCount))
    blocks = TableCache(
      store: file, order: writeOrder, sliceByteCount: Int(min(1 << clusterBits, 4096)),
      capacity: Qcow2CacheSizes.usual.refcounts)
  }

  /// Clusters that one block counts, as a power of two.
  var blockCoverageBits: UInt64 { clusterBits + 3 - order }
  var clusterSize: UInt64 { 1 << clusterBits }
  /// The largest count there is room for.
  var maximumCount: UInt64 { Self.maximumCount(order: order) }

  static func maximumCount(order: UInt64) -> UInt64 { order == 6 ? .max : (1 << (1 << order)) - 1 }

  static let blockOffsetMask: UInt64 = ~0x1ff

  /// Host offset of the block that counts a cluster, nil where there is none and all counts are 0.
  func blockOffset(of clusterIndex: UInt64) throws(EngineError) -> UInt64? {
    let offset = table[clusterIndex >> blockCoverageBits] & Self.blockOffsetMask
    guard offset != 0 else { return nil }
    guard offset.isAligned(to: clusterSize) else {
      throw .corrupt("Refcount block offset 0x\(hex(offset)) unaligned", at: offset)
    }
    return offset
  }

  /// How many references the image counts for a host cluster.
  func count(of clusterIndex: UInt64) throws(EngineError) -> UInt64 {
    guard let block = try blockOffset(of: clusterIndex) else { return 0 }
    let index = clusterIndex & ((1 << blockCoverageBits) - 1)
    let bit = index << order
    let sliceOffset = (bit >> 3).aligned(downTo: UInt64(blocks.sliceByteCount))
    let slice = unsafe try blocks.slice(at: block + sliceOffset)
    return unsafe Qcow2RefcountSlice(bytes: slice, order: order)[index - ((sliceOffset << 3) >> order)]
  }
}

/// Counts in a slice of a block, big-endian; widths below a byte start at the least significant bit.
@safe struct Qcow2RefcountSlice {
  let bytes: UnsafeMutableRawBufferPointer
  let order: UInt64

  /// Whether it counts nothing.
  var isEmpty: Bool { unsafe ZeroScan.isZero(UnsafeRawBufferPointer(bytes)) }

  /// `index` counts from the start of the slice and lies in it.
  subscript(index: UInt64) -> UInt64 {
    get {
      let i = Int(index)
      // SAFETY: the slice holds `(bytes.count << 3) >> order` counts and `index` is one of them.
      switch order {
      case 0...2:
        let width = 1 << order
        let byte = UInt64(unsafe bytes.load(fromByteOffset: (i << order) >> 3, as: UInt8.self))
        return (byte >> UInt64((i << order) & 7)) & ((1 << UInt64(width)) - 1)
      case 3: return UInt64(unsafe bytes.load(fromByteOffset: i, as: UInt8.self))
      case 4: return UInt64(unsafe bytes.load(fromByteOffset: i * 2, as: UInt16.self).bigEndian)
      case 5: return UInt64(unsafe bytes.load(fromByteOffset: i * 4, as: UInt32.self).bigEndian)
      default: return unsafe bytes.load(fromByteOffset: i * 8, as: UInt64.self).bigEndian
      }
    }
    nonmutating set {
      let i = Int(index)
      // SAFETY: as above; the caller keeps the value within the width.
      switch order {
      case 0...2:
        let shift = UInt8((i << order) & 7)
        let mask = UInt8((1 << (1 << order)) - 1) << shift
        let old = unsafe bytes.load(fromByteOffset: (i << order) >> 3, as: UInt8.self)
        let new = (old & ~mask) | (UInt8(truncatingIfNeeded: newValue) << shift & mask)
        unsafe bytes.storeBytes(of: new, toByteOffset: (i << order) >> 3, as: UInt8.self)
      case 3:
        unsafe bytes.storeBytes(of: UInt8(truncatingIfNeeded: newValue), toByteOffset: i, as: UInt8.self)
      case 4:
        unsafe bytes.storeBytes(
          of: UInt16(truncatingIfNeeded: newValue).bigEndian, toByteOffset: i * 2, as: UInt16.self)
      case 5:
        unsafe bytes.storeBytes(
          of: UInt32(truncatingIfNeeded: newValue).bigEndian, toByteOffset: i * 4, as: UInt32.self)
      default: unsafe bytes.storeBytes(of: newValue.bigEndian, toByteOffset: i * 8, as: UInt64.self)
      }
    }
  }
}
