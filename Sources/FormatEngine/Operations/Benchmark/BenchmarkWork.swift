/// One run of a benchmark: the disk, the memory, and how a request is carried out by a thread that waits for it.
final class BenchmarkWork: Sendable {
  let chain: ImageChain
  let options: BenchmarkOptions
  let places: RequestPlaces
  let buffers: RequestBuffers

  /// `slotCount`: requests that have memory of their own.
  init(_ chain: ImageChain, _ options: BenchmarkOptions, slotCount: Int) throws(EngineError) {
    self.chain = chain
    self.options = options
    places = RequestPlaces(options, virtualSize: chain.virtualSize)
    var pattern: UInt8 = 0
    if case .write(let byte) = options.kind { pattern = byte }
    buffers = try RequestBuffers(count: slotCount, byteCount: options.byteCount, pattern: pattern)
  }

  /// The range of a request; throws where it leaves the disk.
  func guestOffset(_ index: Int) throws(EngineError) -> UInt64 {
    let offset = places.guestOffset(index)
    let (size, count) = (chain.virtualSize, UInt64(options.byteCount))
    guard offset <= size, count <= size - offset else {
      throw EngineError(
        .corrupt, "A request for \(count) bytes at \(offset) leaves the disk of \(size) bytes", offset: offset
      )
    }
    return offset
  }

  /// Reads or writes, and waits for it.
  func transfer(_ index: Int, slot: Int) throws(EngineError) {
    let offset = try guestOffset(index)
    let memory = unsafe buffers.place(slot)
    switch options.kind {
    case .read: unsafe try chain.read(into: memory, at: offset)
    case .write: unsafe try chain.write(UnsafeRawBufferPointer(memory), at: offset)
    }
  }
}
