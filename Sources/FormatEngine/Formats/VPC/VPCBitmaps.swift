/// The sector bitmaps that stand before the blocks: one bit a sector, the first one in the highest bit of a byte.
/// Changed in memory first. Lives in its layer's lock.
struct VPCBitmaps {
  private let cache: TableCache
  private static let sliceByteCount: UInt64 = 512
  /// Those of 4 GiB of disk with blocks of 2 MiB.
  private static let cacheByteCount = MiB

  /// Dirty slices leave through `order`, where the caller puts `table`.
  init(in store: any ByteStore, order: WriteOrder) {
    cache = TableCache(
      store: store, order: order, sliceByteCount: Int(Self.sliceByteCount), capacity: Self.cacheByteCount)
  }

  var table: any OrderedTable { cache }

  /// The run of like bits from `sector` on, at most up to `end`, which must be above it. `hostOffset`: of the bitmap.
  func run(at hostOffset: UInt64, from sector: UInt64, to end: UInt64) throws(EngineError) -> (
    isSet: Bool, count: UInt64
  ) {
    let isSet = try bit(sector, at: hostOffset)
    let like: UInt8 = isSet ? 0xff : 0
    var position = sector + 1
    while position < end {
      if position.isAligned(to: 8), end - position >= 8, try byte(position / 8, at: hostOffset) == like {
        position += 8
      } else if try bit(position, at: hostOffset) == isSet {
        position += 1
      } else {
        break
      }
    }
    return (isSet, position - sector)
  }

  /// Sets the bits of `sectors`.
  func set(_ sectors: Range<UInt64>, at hostOffset: UInt64) throws(EngineError) {
    var position = sectors.lowerBound
    while position < sectors.upperBound {
      // One byte at a time; the first sector has its highest bit.
      let byteEnd = position.aligned(downTo: 8) + 8
      let end = min(sectors.upperBound, byteEnd)
      let mask = (UInt8.max >> UInt8(position & 7)) & (UInt8.max << UInt8(byteEnd - end))
      let (slice, place) = Self.place(of: position / 8, at: hostOffset)
      let bytes = unsafe try cache.slice(at: slice)
      // SAFETY: `place` lies inside the slice.
      if unsafe bytes[place] & mask != mask {
        unsafe bytes[place] |= mask
        cache.markDirty(at: slice)
      }
      position = end
    }
  }

  /// A new bitmap of `byteCount` bytes, whole slices, all of whose bits are alike.
  func fill(at hostOffset: UInt64, byteCount: UInt64, with bit: Bool) throws(EngineError) {
    for slice in stride(from: hostOffset, to: hostOffset + byteCount, by: Int(Self.sliceByteCount)) {
      let bytes = unsafe try cache.freshSlice(at: slice)
      if bit { unsafe bytes.initializeMemory(as: UInt8.self, repeating: 0xff) }
    }
  }

  private func bit(_ sector: UInt64, at hostOffset: UInt64) throws(EngineError) -> Bool {
    try byte(sector / 8, at: hostOffset) & (0x80 >> UInt8(sector & 7)) != 0
  }

  private func byte(_ index: UInt64, at hostOffset: UInt64) throws(EngineError) -> UInt8 {
    let (slice, place) = Self.place(of: index, at: hostOffset)
    // SAFETY: as above.
    return unsafe try cache.slice(at: slice)[place]
  }

  private static func place(of index: UInt64, at hostOffset: UInt64) -> (slice: UInt64, place: Int) {
    (hostOffset + index.aligned(downTo: sliceByteCount), Int(index & (sliceByteCount - 1)))
  }
}
