/// Writing to a fixed disk is writing to its file, up to the footer.
extension VPCFixedLayer: WritableLayer {
  func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation {
    let length = try stored(at: offset, limit: limit)
    return Allocation(guestOffset: offset, length: length, hostOffset: offset, isNew: false)
  }

  func link(_ allocation: Allocation) throws(EngineError) {}
  func abandon(_ allocation: Allocation) {}

  func setZeros(at offset: UInt64, limit: UInt64, keepingRoom: Bool) throws(EngineError) -> UInt64 {
    let length = try stored(at: offset, limit: limit)
    try file.writeZeros(at: offset, count: length, freeing: !keepingRoom)
    return length
  }

  func discard(at offset: UInt64, limit: UInt64) throws(EngineError) -> UInt64 {
    try setZeros(at: offset, limit: limit, keepingRoom: false)
  }

  func flush() throws(EngineError) { try file.flush() }
  func close() throws(EngineError) { try flush() }
}
