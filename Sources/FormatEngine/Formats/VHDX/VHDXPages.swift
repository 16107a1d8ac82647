/// The image's metadata in pages of 4 KiB: the BAT and sector bitmaps, and whatever else is changed through the log.
/// Changed pages are held apart until the log has them and they are in their places. Lives in its layer's lock.
final class VHDXPages: OrderedTable {
  private let file: any ByteStore
  private let cache: TableCache
  private var changed: [UInt64: AlignedBuffer] = [:]

  static let pageByteCount = 4096
  /// 1 MiB holds the BAT of 128 GiB in blocks of 1 MiB, of 4 TiB in blocks of 32 MiB.
  private static let cacheByteCount = MiB

  init(file: any ByteStore) {
    self.file = file
    cache = TableCache(
      store: file, order: nil, sliceByteCount: Self.pageByteCount, capacity: Self.cacheByteCount)
  }

  var isDirty: Bool { !changed.isEmpty }
  var changedCount: Int { changed.count }

  /// The changed pages by their places, lowest first.
  var changedOffsets: [UInt64] { changed.keys.sorted() }

  /// A page for reading; good until the next call.
  func page(at hostOffset: UInt64) throws(EngineError) -> UnsafeRawBufferPointer {
    if !changed.isEmpty, let page = changed[hostOffset] { return unsafe UnsafeRawBufferPointer(page.bytes) }
    return unsafe UnsafeRawBufferPointer(try cache.slice(at: hostOffset))
  }

  /// A page for changing; good until the changes are forgotten.
  private func writablePage(at hostOffset: UInt64) throws(EngineError) -> UnsafeMutableRawBufferPointer {
    if let page = changed[hostOffset] { return unsafe page.bytes }
    let copy = AlignedBuffer(byteCount: Self.pageByteCount)
    unsafe copy.bytes.copyMemory(from: UnsafeRawBufferPointer(try cache.slice(at: hostOffset)))
    changed[hostOffset] = copy
    return unsafe copy.bytes
  }

  private static func split(_ hostOffset: UInt64) -> (page: UInt64, position: Int) {
    let page = hostOffset.aligned(downTo: UInt64(pageByteCount))
    return (page, Int(hostOffset - page))
  }

  /// A number that does not cross the border of a page.
  func number(at hostOffset: UInt64) throws(EngineError) -> UInt64 {
    let (page, position) = Self.split(hostOffset)
    guard position <= Self.pageByteCount - 8 else {
      throw .corrupt("A number crosses a page", at: hostOffset)
    }
    // SAFETY: eight bytes from `position` on lie in the page.
    return UInt64(
      littleEndian: unsafe try self.page(at: page).loadUnaligned(fromByteOffset: position, as: UInt64.self))
  }

  func setNumber(at hostOffset: UInt64, to value: UInt64) throws(EngineError) {
    let (page, position) = Self.split(hostOffset)
    guard position <= Self.pageByteCount - 8 else {
      throw .corrupt("A number crosses a page", at: hostOffset)
    }
    // SAFETY: as above.
    unsafe try writablePage(at: page).storeBytes(
      of: value.littleEndian, toByteOffset: position, as: UInt64.self)
  }

  /// Overwrites bytes, in as many pages as they touch.
  func write(_ bytes: [UInt8], at hostOffset: UInt64) throws(EngineError) {
    var done = 0
    while done < bytes.count {
      let (page, position) = Self.split(hostOffset + UInt64(done))
      let count = min(bytes.count - done, Self.pageByteCount - position)
      let target = unsafe try writablePage(at: page)
      for index in 0..<count { unsafe target[position + index] = bytes[done + index] }
      done += count
    }
  }

  /// The content of a page that was changed.
  func changedPage(at hostOffset: UInt64) -> [UInt8] {
    changed[hostOffset].map { unsafe [UInt8]($0.bytes) } ?? []
  }

  /// Writes the changed pages to their places. They stay changed until that is on disk: what the log has to
  /// have is always in its newest entry.
  func writeBack() throws(EngineError) {
    for hostOffset in changedOffsets {
      guard let page = changed[hostOffset] else { continue }
      unsafe try file.write(UnsafeRawBufferPointer(page.bytes), at: hostOffset)
    }
  }

  /// All changes are on disk.
  func settle() {
    for hostOffset in changed.keys { cache.drop(at: hostOffset, count: UInt64(Self.pageByteCount)) }
    changed.removeAll(keepingCapacity: true)
  }

  /// The place of pages gets another content that did not come by here.
  func forget(at hostOffset: UInt64, count: UInt64) {
    for page in changed.keys where page >= hostOffset && page < hostOffset + count { changed[page] = nil }
    cache.drop(at: hostOffset, count: count)
  }
}

// MARK: Bits

extension VHDXPages {
  private static let pageBits = UInt64(pageByteCount * 8)

  /// The value of bit `index` of a bitmap, and how many bits from there on have it, at most `limit`.
  func run(ofBitmapAt hostOffset: UInt64, from index: UInt64, limit: UInt64) throws(EngineError)
    -> (isSet: Bool, count: UInt64)
  {
    var isSet: Bool?
    var position = index
    let end = index + limit
    while position < end {
      let pageIndex = position / Self.pageBits
      let page = unsafe try page(at: hostOffset + pageIndex * UInt64(Self.pageByteCount))
      let pageEnd = min(end, (pageIndex + 1) * Self.pageBits)
      while position < pageEnd {
        let bit = position % Self.pageBits
        // SAFETY: `bit` is one of the page's.
        let byte = unsafe page[Int(bit / 8)]
        let value = byte >> UInt8(bit % 8) & 1 != 0
        if let isSet, value != isSet { return (isSet, position - index) }
        isSet = value
        // Eight of them at once where a byte is all alike.
        let isWhole = bit % 8 == 0 && pageEnd - position >= 8 && byte == (value ? 0xff : 0)
        position += isWhole ? 8 : 1
      }
    }
    return (isSet ?? false, limit)
  }

  /// Sets or clears bits `index ..< index + count`.
  func setBits(ofBitmapAt hostOffset: UInt64, from index: UInt64, count: UInt64, to isSet: Bool)
    throws(EngineError)
  {
    var position = index
    let end = index + count
    while position < end {
      let pageIndex = position / Self.pageBits
      let page = unsafe try writablePage(at: hostOffset + pageIndex * UInt64(Self.pageByteCount))
      let pageEnd = min(end, (pageIndex + 1) * Self.pageBits)
      while position < pageEnd {
        let bit = position % Self.pageBits
        let byte = Int(bit / 8)
        if bit % 8 == 0 && pageEnd - position >= 8 {
          // SAFETY: `byte` is one of the page's.
          unsafe page[byte] = isSet ? 0xff : 0
          position += 8
        } else {
          let mask = UInt8(1) << UInt8(bit % 8)
          unsafe page[byte] = isSet ? page[byte] | mask : page[byte] & ~mask
          position += 1
        }
      }
    }
  }
}
