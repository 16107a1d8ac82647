import Synchronization

/// An opened QED image.
final class QEDLayer: ImageLayer {
  var virtualSize: UInt64 { size.load(ordering: .relaxed) }
  let clusterSize: UInt64
  var backing: BackingReference? { state.withLock { $0.prologue.backing } }
  let storesHoles = false
  let file: any ByteStore
  let guestFile: any ByteStore
  let geometry: QEDGeometry
  /// Protects the tables and the header, never data I/O. After `RangeLock`, before `ClusterCache`.
  let state: Guarded<QEDState>
  /// The virtual size, for those who ask without the lock.
  let size: Atomic<UInt64>

  /// `isOverlay`: the command line says what lies below.
  init(file: any ByteStore, prologue: QEDPrologue, isOverlay: Bool) throws(EngineError) {
    self.file = file
    guestFile = file.guestBytes
    geometry = prologue.header.geometry
    clusterSize = geometry.clusterSize
    size = Atomic(prologue.header.virtualSize)
    state = Guarded(try QEDState(prologue, file: file, isOverlay: isOverlay))
  }

  func store(_ index: UInt16) -> any ByteStore { guestFile }

  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    try state.withLock { (state) throws(EngineError) in try state.extent(at: offset, limit: limit) }
  }

  func readCompressed(_ extent: Extent, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    throw .corrupt("A QED image has no compressed clusters", at: offset)
  }
}

extension QEDLayer: SelfDescribing {
  var formatSpecificInfo: [InfoField]? { nil }
  var isDirty: Bool? { state.withLock { $0.prologue.header.features.contains(.needsCheck) } }
  var isEncrypted: Bool { false }
  var isCompressedByDefault: Bool { false }
  var extraFiles: [NamedStore] { [] }
}
