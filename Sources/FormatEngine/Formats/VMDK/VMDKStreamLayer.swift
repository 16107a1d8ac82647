extension VMDKFormat: StreamableFormat {
  static func createStream(on file: any ByteStore, _ request: CreateRequest) throws(EngineError)
    -> any WritableLayer
  {
    let options = try VMDKCreateOptions(request)
    guard options.subformat == .streamOptimized else {
      throw .unsupported(
        "A VMDK image is written to a pipe only with the option subformat=streamOptimized")
    }
    let stream = try VMDKNewStream(byteCount: request.virtualSize, hasZeroedGrains: options.hasZeroedGrains)
    let writer = try stream.begin(on: file, descriptor: try newDescriptor(options, request).text)
    return VMDKStreamLayer(
      writer, file: file, grainSize: stream.grainSize, virtualSize: request.virtualSize,
      backing: request.backing)
  }
}

/// A streamOptimized image on its way into a pipe: it takes packed grains in the order of the disk, and gives none back.
final class VMDKStreamLayer: CompressedWriting {
  let virtualSize: UInt64
  let clusterSize: UInt64
  let backing: BackingReference?
  let storesHoles = false
  private let file: any ByteStore
  /// Held while grains are written: they come in turn, so nobody waits for it. Nil once all is written.
  private let writer: Guarded<VMDKStreamWriter?>

  init(
    _ writer: VMDKStreamWriter, file: any ByteStore, grainSize: UInt64, virtualSize: UInt64,
    backing: BackingReference?
  ) {
    self.writer = Guarded(writer)
    self.file = file
    clusterSize = grainSize
    self.virtualSize = virtualSize
    self.backing = backing
  }

  // MARK: Packing

  var unitPacking: UnitPacking { .always }
  var compressionUnit: UInt64 { clusterSize }
  var largestPackedUnit: UInt64 { VMDKGrainPacking.largestPackedGrain(ofSize: clusterSize) }
  var needsAscendingOffsets: Bool { true }

  func makePacker() throws(EngineError) -> any ClusterPacker { try VMDKGrainPacking.makePacker() }

  func storeCompressed(_ bytes: UnsafeRawBufferPointer, pieces: [PackedPiece]) throws(EngineError) {
    try writer.withLock { (writer) throws(EngineError) in unsafe try writer?.append(bytes, pieces) }
  }

  func finishCompressed() throws(EngineError) {
    try writer.withLock { (writer) throws(EngineError) in
      _ = try writer?.finish()
      writer = nil
    }
  }

  // MARK: What a stream cannot do

  func store(_ index: UInt16) -> any ByteStore { file }
  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent { throw Self.inOrder }
  func readCompressed(_ extent: Extent, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    throw Self.inOrder
  }
  func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation { throw Self.inOrder }
  func link(_ allocation: Allocation) throws(EngineError) {}
  func abandon(_ allocation: Allocation) {}
  func setZeros(at offset: UInt64, limit: UInt64, keepingRoom: Bool) throws(EngineError) -> UInt64 {
    throw Self.inOrder
  }
  func discard(at offset: UInt64, limit: UInt64) throws(EngineError) -> UInt64 { limit }
  func flush() throws(EngineError) {}
  func close() throws(EngineError) { try finishCompressed() }

  private static let inOrder = EngineError(
    .unsupported, "A streamOptimized VMDK image in a pipe takes packed grains only")
}
