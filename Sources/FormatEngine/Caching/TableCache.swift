/// Slices of on-disk tables, held in disk order and bounded in number.
///
/// Set-associative: a slice's place in the file says in which set of eight slots it may stand, so a
/// look-up needs no hashing of objects and a full cache costs no more than an empty one. Memory is
/// touched slot by slot as it is used. Lives in its layer's lock.
@safe final class TableCache: OrderedTable {
  let sliceByteCount: Int
  private let store: any ByteStore
  /// Weak: the order holds its tables, and the layer holds the order.
  private weak var order: WriteOrder?
  /// The number of sets, a power of two, less one.
  private let setMask: UInt64
  private let sliceBits: UInt64
  /// First byte of the store that is no table's: slices are cut off there.
  private let end: UInt64
  private let slotCount: Int
  /// The slices of all slots; behind them `keys`, `lastUse` and `dirty`. The system gives it page by page.
  private let memory: UnsafeMutableRawPointer
  /// Which slice is in each slot, by `key(of:)`; 0 where there is none. Plain memory, as `lastUse`: every look-up of
  /// every read comes by here.
  private let keys: UnsafeMutablePointer<UInt64>
  private let lastUse: UnsafeMutablePointer<UInt64>
  private let dirty: UnsafeMutablePointer<Bool>
  private var dirtyCount = 0
  private var clock: UInt64 = 0

  private static let ways = 8
  private static let vacant: UInt64 = 0
  /// Addresses that are left for all else where a process may not have many (RLIMIT_AS): each image of a chain has
  /// caches.
  private static let spareByteCount = 256 * Int(MiB)

  /// Room for at least `capacity` bytes in slices of `sliceByteCount` (a power of two), or for less, but a few slices, where
  /// the system does not give as much. Dirty slices leave the cache only through `order`, which the caller appends it
  /// to; nil for tables that are only read.
  ///
  /// Slices begin where callers say, always at the same places. `end`: a host offset that no slice goes beyond; what
  /// a slice has after it reads as zeros.
  init(
    store: any ByteStore, order: WriteOrder?, sliceByteCount: Int, capacity: UInt64, end: UInt64 = .max
  ) {
    self.store = store
    self.end = end
    self.order = order
    self.sliceByteCount = sliceByteCount
    sliceBits = UInt64(sliceByteCount.trailingZeroBitCount)
    let wanted = max(1, capacity.dividedRoundingUp(by: UInt64(sliceByteCount * Self.ways)))
    var setCount = wanted == 1 ? 1 : UInt64(1) << UInt64(UInt64.bitWidth - (wanted - 1).leadingZeroBitCount)
    var mapped = unsafe Self.map(setCount, sliceByteCount, sparing: Self.spareByteCount)
    while unsafe mapped == nil && setCount > 1 {
      setCount /= 2
      unsafe mapped = unsafe Self.map(setCount, sliceByteCount, sparing: Self.spareByteCount)
    }
    if unsafe mapped == nil { unsafe mapped = unsafe Self.map(setCount, sliceByteCount, sparing: 0) }
    precondition(unsafe mapped != nil, "No memory for a few slices of a table")
    let memory = unsafe mapped.unsafelyUnwrapped
    setMask = setCount - 1
    slotCount = Int(setCount) * Self.ways
    unsafe self.memory = memory
    // SAFETY: `map` has room for all of them behind the slices, whose size is a multiple of 8.
    unsafe keys = (memory + slotCount * sliceByteCount).bindMemory(to: UInt64.self, capacity: slotCount)
    unsafe lastUse = (keys + slotCount)
    unsafe dirty = UnsafeMutableRawPointer(lastUse + slotCount).bindMemory(to: Bool.self, capacity: slotCount)
  }

  private static func map(_ setCount: UInt64, _ sliceByteCount: Int, sparing spare: Int)
    -> UnsafeMutableRawPointer?
  {
    unsafe AnonymousMemory.map(
      byteCount: byteCount(slots: Int(setCount) * ways, sliceByteCount), sparing: spare)
  }

  private static func byteCount(slots: Int, _ sliceByteCount: Int) -> Int {
    slots * (sliceByteCount + 8 + 8 + 1)
  }

  deinit { unsafe AnonymousMemory.unmap(memory, byteCount: Self.byteCount(slots: slotCount, sliceByteCount)) }

  /// Never 0: no slice begins at the last byte there is.
  private static func key(of hostOffset: UInt64) -> UInt64 { ~hostOffset }

  /// Where the slice in a slot begins that is not vacant.
  private func offset(of slot: Int) -> UInt64 { ~(unsafe keys[slot]) }

  var isDirty: Bool { dirtyCount > 0 }

  /// The slice that starts at `hostOffset`, read if need be. Good until the next call.
  func slice(at hostOffset: UInt64) throws(EngineError) -> UnsafeMutableRawBufferPointer {
    unsafe slotBytes(try slot(for: hostOffset, reading: true))
  }

  /// The slice at `hostOffset`, all zeros and dirty, without reading what is there.
  func freshSlice(at hostOffset: UInt64) throws(EngineError) -> UnsafeMutableRawBufferPointer {
    let slot = try slot(for: hostOffset, reading: false)
    let bytes = unsafe slotBytes(slot)
    unsafe bytes.initializeMemory(as: UInt8.self, repeating: 0)
    markDirty(slot: slot)
    return unsafe bytes
  }

  /// The slice at `hostOffset`, which was just returned, has changed.
  func markDirty(at hostOffset: UInt64) {
    if let slot = find(hostOffset) { markDirty(slot: slot) }
  }

  /// Forgets slices in a range whose content is no longer a table. Their changes are lost.
  func drop(at hostOffset: UInt64, count: UInt64) {
    for position in stride(from: hostOffset, to: hostOffset + count, by: sliceByteCount) {
      guard let slot = find(position) else { continue }
      clean(slot: slot)
      unsafe keys[slot] = Self.vacant
    }
  }

  func writeBack() throws(EngineError) {
    guard dirtyCount > 0 else { return }
    // In the order of the file: neighbours merge in the host's page cache.
    let slots = (0..<slotCount).filter { unsafe dirty[$0] }.sorted { offset(of: $0) < offset(of: $1) }
    for slot in slots {
      let hostOffset = offset(of: slot)
      let bytes = unsafe storedPart(of: slotBytes(slot), at: hostOffset)
      Trace.emit(.tableWriteBack, "offset \(hostOffset) bytes \(bytes.count)")
      unsafe try store.write(UnsafeRawBufferPointer(bytes), at: hostOffset)
      clean(slot: slot)
    }
  }

  private func slot(for hostOffset: UInt64, reading: Bool) throws(EngineError) -> Int {
    clock += 1
    if let slot = find(hostOffset) {
      unsafe lastUse[slot] = clock
      return slot
    }
    let slot = try victim(in: set(of: hostOffset))
    if unsafe keys[slot] != Self.vacant {
      Trace.emit(.tableEvict, "offset \(offset(of: slot)) for \(hostOffset)")
    }
    unsafe keys[slot] = Self.vacant
    if reading {
      Trace.emit(.tableLoad, "offset \(hostOffset) bytes \(sliceByteCount)")
      let bytes = unsafe slotBytes(slot)
      let stored = unsafe storedPart(of: bytes, at: hostOffset)
      unsafe try store.read(into: stored, at: hostOffset)
      if stored.count < bytes.count {
        let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[stored.count...])
        unsafe rest.initializeMemory(as: UInt8.self, repeating: 0)
      }
    }
    unsafe keys[slot] = Self.key(of: hostOffset)
    unsafe lastUse[slot] = clock
    return slot
  }

  /// What of a slice lies before the end of the tables.
  private func storedPart(of bytes: UnsafeMutableRawBufferPointer, at hostOffset: UInt64)
    -> UnsafeMutableRawBufferPointer
  {
    guard hostOffset < end else { return unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[..<0]) }
    let count = min(UInt64(bytes.count), end - hostOffset)
    return unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[..<Int(count)])
  }

  /// The least recently used clean slot of a set. Where all are dirty, everything is written first.
  private func victim(in set: Int) throws(EngineError) -> Int {
    let slots = set * Self.ways..<(set + 1) * Self.ways
    if slots.allSatisfy({ unsafe dirty[$0] }) {
      guard let order else { throw EngineError(.readOnly, "These tables are only read") }
      try order.flush()
    }
    var best = slots.lowerBound
    var bestUse = UInt64.max
    for slot in slots where unsafe !dirty[slot] {
      if unsafe keys[slot] == Self.vacant { return slot }
      if unsafe lastUse[slot] < bestUse { (best, bestUse) = unsafe (slot, lastUse[slot]) }
    }
    return best
  }

  private func find(_ hostOffset: UInt64) -> Int? {
    let first = set(of: hostOffset) * Self.ways
    let key = Self.key(of: hostOffset)
    for slot in first..<first + Self.ways where unsafe keys[slot] == key { return slot }
    return nil
  }

  /// Neighbouring slices go to neighbouring sets; the upper bits are folded in so that tables a power of
  /// two apart do not all meet in one set.
  private func set(of hostOffset: UInt64) -> Int {
    let number = hostOffset >> sliceBits
    return Int((number ^ (number >> 17)) & setMask)
  }

  private func slotBytes(_ slot: Int) -> UnsafeMutableRawBufferPointer {
    // SAFETY: `slot` is an index of `keys`, which has one element for each slot of `memory`.
    unsafe UnsafeMutableRawBufferPointer(start: memory + slot * sliceByteCount, count: sliceByteCount)
  }

  private func markDirty(slot: Int) {
    if unsafe !dirty[slot] {
      unsafe dirty[slot] = true
      dirtyCount += 1
    }
  }

  private func clean(slot: Int) {
    if unsafe dirty[slot] {
      unsafe dirty[slot] = false
      dirtyCount -= 1
    }
  }
}
