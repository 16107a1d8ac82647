import Synchronization

/// An opened expandable image.
final class ParallelsLayer: ImageLayer {
  var virtualSize: UInt64 { size.load(ordering: .relaxed) }
  let clusterSize: UInt64
  /// Images of their own name none; what lies below one is for a bundle, or the command line, to say.
  let backing: BackingReference? = nil
  let storesHoles = false
  let cipher: LayerCipher? = nil
  let file: any ByteStore
  private let guestFile: any ByteStore
  /// Protects the BAT and the header, never data I/O. After `RangeLock`.
  let state: Guarded<ParallelsState>
  let size: Atomic<UInt64>
  /// Whether the command line says what lies below.
  let isOverlay: Bool

  init(file: any ByteStore, header: ParallelsHeader, request: LayerRequest) throws(EngineError) {
    self.file = file
    guestFile = file.guestBytes
    isOverlay = request.isOverlay
    clusterSize = header.geometry.clusterSize
    size = Atomic(header.virtualSize)
    var state = ParallelsState(header, file: file)
    if request.access == .readWrite && !request.isForInspection {
      try state.openForWriting(note: request.note, request.progress)
    }
    self.state = Guarded(state)
  }

  func store(_ index: UInt16) -> any ByteStore { guestFile }

  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    try state.withLock { (state) throws(EngineError) in try state.extent(at: offset, limit: limit) }
  }

  func readCompressed(_ extent: Extent, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    throw .corrupt("A Parallels image has no compressed data", at: offset)
  }
}

extension ParallelsLayer: SelfDescribing {
  /// QEMU tells nothing; bitmaps are worth telling of.
  var formatSpecificInfo: [InfoField]? {
    // Those that cannot be read are told of by who asks for them.
    guard let bitmaps = try? bitmaps(), !bitmaps.isEmpty else { return nil }
    let list = bitmaps.map { record in
      InfoValue.record([
        InfoField("name", .text(record.name)), InfoField("granularity", .integer(Int64(record.granularity))),
      ])
    }
    return [InfoField("bitmaps", .list(list))]
  }

  var isDirty: Bool? { nil }
  var tellsUnit: Bool { false }
  var isEncrypted: Bool { false }
  var isCompressedByDefault: Bool { false }
  var extraFiles: [NamedStore] { [] }
}
