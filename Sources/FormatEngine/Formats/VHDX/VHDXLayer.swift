import Synchronization

/// An opened VHDX image.
final class VHDXLayer: ImageLayer {
  /// What became of a log that was in use.
  enum LogReplay: Sendable {
    /// It was empty.
    case none
    /// Replayed for this reader; the file is as it was.
    case inMemory
    case inFile
  }

  var virtualSize: UInt64 { size.load(ordering: .relaxed) }
  let clusterSize: UInt64
  let backing: BackingReference?
  /// Room of fixed images is set aside in advance.
  let storesHoles: Bool
  let cipher: LayerCipher? = nil
  let file: any ByteStore
  let guestFile: any ByteStore
  let replay: LogReplay
  let path: String
  /// Protects the tables and the header, never data I/O. After `RangeLock`, before `ClusterCache`.
  let state: Guarded<VHDXState>
  /// The virtual size, for those who ask without the lock.
  let size: Atomic<UInt64>

  /// `file`: with its log replayed.
  init(
    _ file: any ByteStore, _ image: VHDXImage, replay: LogReplay, path: String,
    _ identities: IdentitySource
  ) throws(EngineError) {
    self.file = file
    guestFile = file.guestBytes
    self.replay = replay
    self.path = path
    clusterSize = image.metadata.blockSize
    backing = image.metadata.parent?.reference
    storesHoles = image.metadata.leavesBlocksAllocated && image.metadata.parent == nil
    size = Atomic(image.metadata.virtualSize)
    state = Guarded(try VHDXState(image, file: file, identities))
  }

  func store(_ index: UInt16) -> any ByteStore { guestFile }

  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    try state.withLock { (state) throws(EngineError) in try state.extent(at: offset, limit: limit) }
  }

  func readCompressed(_ extent: Extent, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    throw .corrupt("A VHDX image has no compressed data", at: offset)
  }
}

extension VHDXLayer: ParentChecking {
  /// A parent that was written to since is no longer what the sectors here are differences to.
  func checkParent(_ parent: any ImageLayer, path: String) throws(EngineError) {
    let linkages = state.withLock { $0.image.metadata.parent?.linkages ?? [] }
    guard let parent = parent as? VHDXLayer else {
      throw .invalid("The parent of '\(self.path)' must be a VHDX image, which '\(path)' is not")
    }
    let dataWriteGuid = parent.state.withLock { $0.headers.header.dataWriteGuid }
    guard linkages.contains(dataWriteGuid) else {
      throw .corrupt(
        "'\(path)' is not the parent of '\(self.path)', or was changed since: its data write GUID is"
          + " \(dataWriteGuid), and \(linkages.first?.description ?? "none") is recorded")
    }
  }
}

extension VHDXLayer: SelfDescribing {
  var formatSpecificInfo: [InfoField]? { nil }
  var isDirty: Bool? { replay == .inMemory }
  var isEncrypted: Bool { false }
  var isCompressedByDefault: Bool { false }
  var extraFiles: [NamedStore] { [] }
}
