import Synchronization

/// An opened dynamic or differencing disk.
final class VPCLayer: ImageLayer {
  var virtualSize: UInt64 { size.load(ordering: .relaxed) }
  let clusterSize: UInt64
  let backing: BackingReference?
  let storesHoles = false
  let cipher: LayerCipher? = nil
  let file: any ByteStore
  private let guestFile: any ByteStore
  /// Protects header, table and bitmaps, never data I/O. After `RangeLock`.
  let state: Guarded<VPCState>
  /// The virtual size, for those who ask without the lock.
  let size: Atomic<UInt64>

  init(_ state: sending VPCState) {
    clusterSize = state.geometry.blockSize
    backing = state.backing
    file = state.file
    guestFile = state.file.guestBytes
    size = Atomic(state.virtualSize)
    self.state = Guarded(state)
  }

  func store(_ index: UInt16) -> any ByteStore { guestFile }

  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    try state.withLock { (state) throws(EngineError) in try state.extent(at: offset, limit: limit) }
  }

  func readCompressed(_ extent: Extent, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    throw .corrupt("A VHD has no compressed data", at: offset)
  }
}

extension VPCLayer: ParentChecking {
  func checkParent(_ parent: any ImageLayer, path: String) throws(EngineError) {
    let expected = state.withLock { $0.header.parentID }
    let found: [UInt8]
    switch parent {
    case let parent as VPCLayer: found = parent.state.withLock { $0.footer.uniqueID }
    case let parent as VPCFixedLayer: found = parent.end.withLock { $0.footer.uniqueID }
    default:
      throw .corrupt(
        "The parent '\(path)' of a VHD must be a VHD; with backing.driver=vpc it is taken for one")
    }
    guard found == expected else {
      throw .corrupt("'\(path)' is not the parent that the disk was made over: its unique id is another one")
    }
  }
}
