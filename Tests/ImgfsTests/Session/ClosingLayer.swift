import FormatEngine

/// A disk of zeros that is never written, and takes as long to close as `closing` does.
final class ClosingLayer: WritableLayer {
  let virtualSize: UInt64 = 4096
  let clusterSize: UInt64 = 4096
  let backing: BackingReference? = nil
  let storesHoles = false
  private let memory = MemoryStore([])
  private let closing: @Sendable () throws(EngineError) -> Void

  init(_ closing: @escaping @Sendable () throws(EngineError) -> Void) { self.closing = closing }

  func store(_ index: UInt16) -> any ByteStore { memory }

  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    Extent(.zeros, length: limit)
  }

  func readCompressed(_ extent: Extent, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    throw .corrupt("Nothing is compressed")
  }

  func roomInPlace(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation? { nil }
  func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation {
    throw EngineError(.noSpace, "Nothing is written")
  }
  func link(_ allocation: Allocation) {}
  func abandon(_ allocation: Allocation) {}
  func setZeros(at offset: UInt64, limit: UInt64, keepingRoom: Bool) -> UInt64 { limit }
  func discard(at offset: UInt64, limit: UInt64) -> UInt64 { limit }
  func flush() {}
  func close() throws(EngineError) { try closing() }

  /// As the only layer of a chain.
  func chain() -> ImageChain {
    let member = ChainMember(layer: self, file: memory, path: "/images/disk.img", formatName: "test")
    return ImageChain(members: [member], access: .readWrite)
  }
}
