import Synchronization

extension RawFormat: SequentialFormat, StreamableFormat {
  static func openStream(_ pipe: PipeReader, _ request: LayerRequest) throws(EngineError)
    -> any SequentialDisk
  {
    var options = OptionValues(layerOptions)
    for (name, text) in request.options { try options.set(name, to: text) }
    let offset = options.number("offset") ?? 0
    let skipped = try pipe.skip(offset)
    guard skipped == offset else {
      throw .invalid("Offset (\(offset)) cannot be greater than size of the containing file (\(skipped))")
    }
    let size = options.number("size")
    guard (size ?? 0).isAligned(to: 512) else { throw .invalid("Specified size is not multiple of 512") }
    // What is short enough has a size after all.
    _ = try pipe.peek(Int(MiB))
    return RawPipeDisk(pipe, virtualSize: size)
  }

  static func createStream(on file: any ByteStore, _ request: CreateRequest) throws(EngineError)
    -> any WritableLayer
  {
    RawStreamLayer(file, virtualSize: request.virtualSize)
  }
}

/// The bytes that come out of a pipe as a disk. It is as long as they are unless somebody knew better.
final class RawPipeDisk: SequentialDisk, @unchecked Sendable {
  // @unchecked: one thread at a time.
  let formatName = RawFormat.name
  private let pipe: PipeReader
  /// As the user says it.
  private let givenSize: UInt64?
  /// Guest bytes that were read or passed over.
  private var taken: UInt64 = 0
  private let endOfShortPipe: UInt64?

  init(_ pipe: PipeReader, virtualSize: UInt64?) {
    self.pipe = pipe
    givenSize = virtualSize
    endOfShortPipe = pipe.remainingByteCount
  }

  var virtualSize: UInt64? { givenSize ?? endOfShortPipe?.aligned(upTo: 512) }
  var certainByteCount: UInt64 { virtualSize ?? pipe.aheadCount.aligned(upTo: 512) }

  func zeroRun() throws(EngineError) -> UInt64 { 0 }

  func whileWaiting(_ proceed: @escaping @Sendable () throws(EngineError) -> Void) { pipe.proceed = proceed }

  func skip(_ count: UInt64) throws(EngineError) -> UInt64 {
    let wanted = min(count, left)
    let got = try pipe.skip(wanted)
    return try take(got + padding(behind: got, of: wanted), of: wanted)
  }

  func read(into buffer: UnsafeMutableRawBufferPointer) throws(EngineError) -> Int {
    let wanted = min(UInt64(buffer.count), left)
    // SAFETY: `wanted` is at most what the buffer has, and so is what comes and what fills it up.
    let got = unsafe try pipe.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<Int(wanted)]))
    let zeros = Int(padding(behind: UInt64(got), of: wanted))
    unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[got..<got + zeros])
      .initializeMemory(as: UInt8.self, repeating: 0)
    return Int(try take(UInt64(got + zeros), of: wanted))
  }

  /// Bytes of the disk that are not read yet.
  private var left: UInt64 { (givenSize ?? UInt64.max) - taken }

  /// Zeros that fill up the last sector where the pipe ended.
  private func padding(behind got: UInt64, of wanted: UInt64) -> UInt64 {
    guard got < wanted else { return 0 }
    return min(wanted - got, (taken + got).aligned(upTo: 512) - (taken + got))
  }

  private func take(_ got: UInt64, of wanted: UInt64) throws(EngineError) -> UInt64 {
    taken += got
    guard let givenSize, got < wanted else { return got }
    throw .corrupt("'\(pipe.path)' ended after \(taken) bytes, before the \(givenSize) of the disk")
  }

  func finish() throws(EngineError) {}
}

/// A raw disk on its way into a pipe: the guest's bytes in their order, and zeros where none are written.
final class RawStreamLayer: WritableLayer {
  var virtualSize: UInt64 { size.load(ordering: .relaxed) }
  private let size: Atomic<UInt64>
  let clusterSize: UInt64 = 0
  let backing: BackingReference? = nil
  let storesHoles = false
  private let file: any ByteStore

  init(_ file: any ByteStore, virtualSize: UInt64) {
    self.file = file
    size = Atomic(virtualSize)
  }

  func store(_ index: UInt16) -> any ByteStore { file }

  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent { throw Self.unreadable }

  func readCompressed(_ extent: Extent, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    throw Self.unreadable
  }

  private static let unreadable = EngineError(.unsupported, "What was written to a pipe cannot be read")

  func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation {
    Allocation(guestOffset: offset, length: limit, hostOffset: offset, isNew: false)
  }

  func link(_ allocation: Allocation) throws(EngineError) {}
  func abandon(_ allocation: Allocation) {}

  /// What is written behind them brings the zeros along.
  func setZeros(at offset: UInt64, limit: UInt64, keepingRoom: Bool) throws(EngineError) -> UInt64 { limit }
  func discard(at offset: UInt64, limit: UInt64) throws(EngineError) -> UInt64 { limit }
  func flush() throws(EngineError) {}

  func close() throws(EngineError) {
    let end = try file.byteCount()
    if end < virtualSize { try file.writeZeros(at: end, count: virtualSize - end, freeing: false) }
  }
}

extension RawStreamLayer: Resizable {
  /// Nothing of the size is in a raw image but its end.
  func resize(
    to virtualSize: UInt64, preallocation: Preallocation, progress: Progress,
    clearing: () throws(EngineError) -> Void
  ) throws(EngineError) {
    guard preallocation == .off, virtualSize >= (try file.byteCount()) else {
      throw .invalid("What was written to a pipe cannot be taken back")
    }
    size.store(virtualSize, ordering: .relaxed)
  }
}
