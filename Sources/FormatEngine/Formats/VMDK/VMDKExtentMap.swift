/// One extent of a disk: where its bytes are, and where new ones may go. Each kind of extent - flat, sparse, zeros -
/// is a class of its own; `VMDKLayer` lays them side by side.
///
/// All offsets of the guest count from the extent's first byte, `store` is always 0: the layer moves both to where
/// they are on the disk. A limit ends inside of the extent. Lives in the layer's lock.
protocol VMDKExtentMap: AnyObject {
  /// As in `ImageLayer`.
  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent
  /// These as in `WritableLayer`. Kinds that cannot be written throw.
  func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation
  func link(_ allocation: Allocation) throws(EngineError)
  func abandon(_ allocation: Allocation)
  func setZeros(at offset: UInt64, limit: UInt64, keepingRoom: Bool) throws(EngineError) -> UInt64
  func discard(at offset: UInt64, limit: UInt64) throws(EngineError) -> UInt64
  func flush() throws(EngineError)
}

/// Guest bytes as they are, from one place of a file on.
final class VMDKFlatExtent: VMDKExtentMap {
  private let file: any ByteStore
  /// Of the extent's first byte.
  private let start: UInt64

  /// `start` and the extent's length end below 2^63.
  init(_ file: any ByteStore, from start: UInt64) {
    self.file = file
    self.start = start
  }

  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    Extent(.stored, length: limit, hostOffset: start + offset)
  }

  func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation {
    Allocation(guestOffset: offset, length: limit, hostOffset: start + offset, isNew: false)
  }

  func link(_ allocation: Allocation) throws(EngineError) {}
  func abandon(_ allocation: Allocation) {}

  func setZeros(at offset: UInt64, limit: UInt64, keepingRoom: Bool) throws(EngineError) -> UInt64 {
    try file.writeZeros(at: start + offset, count: limit, freeing: !keepingRoom)
    return limit
  }

  func discard(at offset: UInt64, limit: UInt64) throws(EngineError) -> UInt64 {
    try setZeros(at: offset, limit: limit, keepingRoom: false)
  }

  func flush() throws(EngineError) { try file.flush() }
}

/// Zeros that lie in no file. Nothing else can be written there.
final class VMDKZeroExtent: VMDKExtentMap {
  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    Extent(.zeros, length: limit)
  }

  func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation {
    throw EngineError(.readOnly, "An extent of zeros (ZERO) cannot be written", offset: offset)
  }

  func link(_ allocation: Allocation) throws(EngineError) {}
  func abandon(_ allocation: Allocation) {}

  func setZeros(at offset: UInt64, limit: UInt64, keepingRoom: Bool) throws(EngineError) -> UInt64 { limit }
  func discard(at offset: UInt64, limit: UInt64) throws(EngineError) -> UInt64 { limit }
  func flush() throws(EngineError) {}
}
