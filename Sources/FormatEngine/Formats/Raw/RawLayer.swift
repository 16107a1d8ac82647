import Synchronization

/// A raw disk: guest offsets are host offsets, counted from where the disk begins.
final class RawLayer: WritableLayer {
  var virtualSize: UInt64 { size.load(ordering: .relaxed) }
  private let size: Atomic<UInt64>
  let clusterSize: UInt64 = 0
  let backing: BackingReference? = nil
  let storesHoles = true
  let isCopiedByHost = true
  private let file: any ByteStore
  /// The file as it is written to.
  private let written: any ByteStore
  private let guestFile: any ByteStore
  /// Where in the file the disk begins.
  private let start: UInt64
  /// Its size was given: it is a piece of the file, whatever comes behind it.
  private let isFixed: Bool

  init(
    _ file: any ByteStore, _ written: any ByteStore, from start: UInt64, virtualSize: UInt64,
    isFixed: Bool = false
  ) {
    self.file = file
    self.isFixed = isFixed
    self.written = written
    guestFile = written.guestBytes
    self.start = start
    size = Atomic(virtualSize)
  }

  func store(_ index: UInt16) -> any ByteStore { guestFile }

  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    Extent(.stored, length: limit, hostOffset: start + offset)
  }

  func readCompressed(_ extent: Extent, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    throw .corrupt("A raw disk has no compressed data", at: offset)
  }

  func roomInPlace(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation? {
    try allocate(at: offset, limit: limit)
  }

  func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation {
    Allocation(guestOffset: offset, length: limit, hostOffset: start + offset, isNew: false)
  }

  func link(_ allocation: Allocation) throws(EngineError) {}
  func abandon(_ allocation: Allocation) {}

  func setZeros(at offset: UInt64, limit: UInt64, keepingRoom: Bool) throws(EngineError) -> UInt64 {
    try written.writeZeros(at: start + offset, count: limit, freeing: !keepingRoom)
    return limit
  }

  func discard(at offset: UInt64, limit: UInt64) throws(EngineError) -> UInt64 {
    try setZeros(at: offset, limit: limit, keepingRoom: false)
  }

  func flush() throws(EngineError) { try file.flush() }
  func close() throws(EngineError) { try flush() }
}

extension RawLayer: Resizable {
  func resize(
    to virtualSize: UInt64, preallocation: Preallocation, progress: Progress,
    clearing: () throws(EngineError) -> Void
  ) throws(EngineError) {
    guard !isFixed else { throw .unsupported("Cannot resize fixed-size raw disks") }
    let (end, overflow) = start.addingReportingOverflow(virtualSize)
    guard !overflow, end <= maximumFileOffset else {
      throw EngineError(.tooLarge, "Disk size too large for the chosen offset")
    }
    let isDevice = file.isDevice
    let old = try file.byteCount()
    guard !isDevice || end == old else { throw .unsupported("Cannot resize device files") }
    try file.setByteCount(end, from: old, preallocation, progress)
    size.store(virtualSize.aligned(upTo: 512), ordering: .relaxed)
    try file.flush()
  }
}
