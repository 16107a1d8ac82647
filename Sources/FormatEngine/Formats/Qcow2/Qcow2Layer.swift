import Synchronization

/// An opened qcow2 image: the active disk.
final class Qcow2Layer: ImageLayer {
  var virtualSize: UInt64 { size.load(ordering: .relaxed) }
  let clusterSize: UInt64
  var backing: BackingReference? { state.withLock { $0.prologue.backing } }
  let file: any ByteStore
  private let guestFile: any ByteStore
  let geometry: Qcow2Geometry
  let codec: Qcow2ClusterCodec
  let path: String
  let dataFile: NamedStore?
  /// Nil where the guest's data is stored as it is.
  let encryption: Qcow2Encryption?
  let cipher: LayerCipher?
  var isCopiedByHost: Bool { encryption == nil }
  /// Opened for inspection only: guest data is somewhere else.
  private let lacksDataFile: Bool
  /// Protects the tables and the header, never data I/O. After `RangeLock`, before `ClusterCache`.
  let state: Guarded<Qcow2State>
  /// Of each of its tables, and of those of its snapshots.
  let caches: Qcow2CacheSizes
  private let hasHoles = Guarded<Bool?>(nil)
  /// The virtual size, for those who ask without the lock.
  let size: Atomic<UInt64>

  init(
    file: any ByteStore, prologue: Qcow2Prologue, dataFile: NamedStore?, encryption: Qcow2Encryption?,
    request: LayerRequest
  ) throws(EngineError) {
    let header = prologue.header
    self.file = file
    guestFile = file.guestBytes
    self.dataFile = dataFile
    self.encryption = encryption
    cipher = encryption?.cipher
    lacksDataFile = dataFile == nil && header.incompatibleFeatures.contains(.externalDataFile)
    path = request.path
    size = Atomic(header.virtualSize)
    geometry = header.geometry
    clusterSize = header.geometry.clusterSize
    codec = Qcow2ClusterCodec(.init(rawValue: header.compressionType) ?? .deflate, clusterSize: clusterSize)
    caches = try Qcow2CacheSizes(request.options, clusterSize: header.geometry.clusterSize)
    state = Guarded(try Qcow2State(prologue, file: file, dataFile: dataFile?.store, caches: caches))
  }

  var residentByteCount: Int {
    state.withLock { $0.mapping.l1.residentByteCount + $0.refcounts.table.residentByteCount }
  }

  func store(_ index: UInt16) -> any ByteStore {
    index == 1 ? dataFile?.store ?? guestFile : guestFile
  }

  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    guard !lacksDataFile else { throw .unsupported("The image's data file is not open") }
    return try state.withLock { (state) throws(EngineError) in
      try state.mapping.extent(at: offset, limit: limit)
    }
  }

  func readCompressed(_ extent: Extent, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    let entry = try state.withLock { (state) throws(EngineError) in try state.mapping.entry(at: offset) }
    unsafe try codec.readCluster(entry, geometry, from: file, at: offset, into: buffer)
  }

  /// Whether far fewer clusters have room on the host than the image counts as used: then most of it was
  /// only set aside, and holes are worth asking for. Asked once.
  var storesHoles: Bool {
    if let known = hasHoles.withLock({ $0 }) { return known }
    let answer =
      (try? state.withLock { (state) throws(EngineError) in try state.hasPreallocatedMetadata() }) ?? false
    hasHoles.withLock { $0 = answer }
    return answer
  }
}

extension Qcow2ClusterCodec {
  /// Fills `buffer` with the bytes of a compressed cluster from guest offset `offset` on.
  func readCluster(
    _ entry: Qcow2L2Entry, _ geometry: Qcow2Geometry, from file: any ByteStore, at offset: UInt64,
    into buffer: UnsafeMutableRawBufferPointer
  ) throws(EngineError) {
    guard entry.isCompressed else { throw .corrupt("Cluster is no longer compressed", at: offset) }
    let packed = entry.packed(geometry)
    let first = Int(geometry.offsetInCluster(offset))
    if first == 0 && buffer.count == Int(geometry.clusterSize) {
      return unsafe try unpack(from: file, at: packed.hostOffset, byteCount: packed.byteCount, into: buffer)
    }
    // The last cluster of a disk may be cut short, but it is packed whole.
    let cluster = AlignedBuffer(byteCount: Int(geometry.clusterSize))
    unsafe try unpack(from: file, at: packed.hostOffset, byteCount: packed.byteCount, into: cluster.bytes)
    guard first + buffer.count <= cluster.byteCount else {
      throw .corrupt("Compressed extent is longer than its cluster", at: offset)
    }
    unsafe buffer.copyMemory(
      from: UnsafeRawBufferPointer(rebasing: cluster.bytes[first..<first + buffer.count]))
  }
}

extension Qcow2Layer: SelfDescribing {
  var formatSpecificInfo: [InfoField]? {
    let prologue = state.withLock { $0.prologue }
    let header = prologue.header
    let method = Qcow2ClusterCodec.Method(rawValue: header.compressionType) ?? .deflate
    let encryptionFields = encryption.map { [InfoField("encrypt", .record($0.infoFields))] } ?? []
    guard header.version >= 3 else {
      return [
        InfoField("compat", .text("0.10")), InfoField("compression-type", .text(method.name)),
        InfoField("refcount-bits", .integer(16)),
      ] + encryptionFields
    }
    var fields = [
      InfoField("compat", .text("1.1")), InfoField("compression-type", .text(method.name)),
      InfoField("lazy-refcounts", .flag(header.compatibleFeatures.contains(.lazyRefcounts))),
    ]
    // Those that cannot be read are for `check` to tell of.
    if let bitmaps = try? bitmaps(), !bitmaps.isEmpty {
      fields.append(InfoField("bitmaps", .list(bitmaps.map(Self.info))))
    }
    fields += [
      InfoField("refcount-bits", .integer(1 << Int64(header.refcountOrder))),
      InfoField("corrupt", .flag(header.incompatibleFeatures.contains(.corrupt))),
      InfoField("extended-l2", .flag(header.incompatibleFeatures.contains(.extendedL2))),
    ]
    if header.incompatibleFeatures.contains(.externalDataFile) {
      if let name = prologue.extensions.text(Qcow2HeaderExtensions.Kind.dataFile) {
        fields.append(InfoField("data-file", .text(name)))
      }
      fields.append(
        InfoField("data-file-raw", .flag(header.autoclearFeatures.contains(.rawExternalData))))
    }
    return fields + encryptionFields
  }

  var isDirty: Bool? {
    state.withLock { $0.prologue.header.incompatibleFeatures.contains(.dirty) }
  }

  var isEncrypted: Bool { encryption != nil }
  var isCompressedByDefault: Bool { false }
  var extraFiles: [NamedStore] { dataFile.map { [$0] } ?? [] }
}
