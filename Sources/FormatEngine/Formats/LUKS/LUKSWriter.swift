import Synchronization

/// Every byte of the disk has its place from the start: nothing is ever allocated, and nothing let go of, since a hole
/// would not read as zeros.
extension LUKSLayer: WritableLayer {
  func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation {
    guard cipher != nil else { throw .missingKey(option: "key-secret") }
    return Allocation(guestOffset: offset, length: limit, hostOffset: payloadOffset + offset, isNew: false)
  }

  func link(_ allocation: Allocation) throws(EngineError) {}
  func abandon(_ allocation: Allocation) {}

  /// Zeros are encrypted like all else.
  func setZeros(at offset: UInt64, limit: UInt64, keepingRoom: Bool) throws(EngineError) -> UInt64 { 0 }

  func discard(at offset: UInt64, limit: UInt64) throws(EngineError) -> UInt64 { limit }

  func flush() throws(EngineError) { try file.flush() }
  func close() throws(EngineError) { try flush() }
}

extension LUKSLayer: Resizable {
  /// What is added reads as whatever its bytes decrypt to, as in a new image: to make zeros of it would mean to
  /// write all of it.
  func resize(
    to virtualSize: UInt64, preallocation: Preallocation, progress: Progress,
    clearing: () throws(EngineError) -> Void
  ) throws(EngineError) {
    let old = try file.byteCount()
    // Never a part of a sector: without its end it would not decrypt to what it was.
    guard virtualSize <= maximumFileOffset - payloadOffset - LUKSHeader.sectorByteCount else {
      throw EngineError(.tooLarge, "Image size is too large")
    }
    let rounded = virtualSize.aligned(upTo: LUKSHeader.sectorByteCount)
    try file.setByteCount(payloadOffset + rounded, from: old, preallocation)
    size.store(rounded, ordering: .relaxed)
    try file.flush()
  }
}
