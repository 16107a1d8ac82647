import Synchronization

/// An opened QCOW image.
final class QcowLayer: ImageLayer {
  var virtualSize: UInt64 { size.load(ordering: .relaxed) }
  let clusterSize: UInt64
  var backing: BackingReference? { state.withLock { $0.prologue.backing } }
  let storesHoles = false
  let file: any ByteStore
  let guestFile: any ByteStore
  let geometry: QcowGeometry
  let isEncrypted: Bool
  let cipher: LayerCipher?
  private let codec: QcowClusterCodec
  /// Protects the tables and the header, never data I/O. After `RangeLock`, before `ClusterCache`.
  let state: Guarded<QcowState>
  /// The virtual size, for those who ask without the lock.
  let size: Atomic<UInt64>

  /// `isOverlay`: the command line says what lies below.
  init(file: any ByteStore, prologue: QcowPrologue, cipher: LayerCipher?, isOverlay: Bool)
    throws(EngineError)
  {
    self.file = file
    guestFile = file.guestBytes
    geometry = prologue.header.geometry
    clusterSize = geometry.clusterSize
    isEncrypted = prologue.header.isEncrypted
    self.cipher = cipher
    codec = QcowClusterCodec(clusterSize: clusterSize)
    size = Atomic(prologue.header.diskSize)
    state = Guarded(try QcowState(prologue, file: file, isOverlay: isOverlay))
  }

  func store(_ index: UInt16) -> any ByteStore { guestFile }

  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    try state.withLock { (state) throws(EngineError) in try state.extent(at: offset, limit: limit) }
  }

  func readCompressed(_ extent: Extent, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    let entry = try state.withLock { (state) throws(EngineError) -> QcowEntry in
      guard let table = try state.tableOffset(geometry.l1Index(offset)) else { return .unallocated }
      return try state.entry(at: offset, in: table)
    }
    guard case .packed(let host, let byteCount) = entry else {
      throw .corrupt("Cluster is no longer compressed", at: offset)
    }
    let first = Int(geometry.offsetInCluster(offset))
    unsafe try codec.unpack(from: file, at: host, byteCount: Int(byteCount), first: first, into: buffer)
  }
}

extension QcowLayer: SelfDescribing {
  var formatSpecificInfo: [InfoField]? { nil }
  var isDirty: Bool? { nil }
  var isCompressedByDefault: Bool { false }
  var extraFiles: [NamedStore] { [] }
}
