/// An internal snapshot, read through an L1 table of its own over the image's clusters.
final class Qcow2SnapshotLayer: ImageLayer {
  let virtualSize: UInt64
  let clusterSize: UInt64
  let backing: BackingReference?
  let storesHoles = false
  var cipher: LayerCipher? { image.cipher }
  private let image: Qcow2Layer
  /// Protects the tables, never data I/O.
  private let mapping: Guarded<Qcow2Mapping>

  /// The caller holds the image's lock: where the snapshot's table is does not change meanwhile.
  init(of image: Qcow2Layer, _ snapshot: Qcow2Snapshot, _ prologue: Qcow2Prologue) throws(EngineError) {
    let header = prologue.header
    try header.validateTable(
      "Snapshot L1 table", offset: snapshot.l1Offset, count: UInt64(snapshot.l1Count), entryByteCount: 8,
      maximumBytes: Qcow2Header.maximumL1Bytes)
    guard snapshot.record.virtualSize <= maximumFileOffset else {
      throw .corrupt("Snapshot disk size \(snapshot.record.virtualSize) is too large")
    }
    let fileEnd = try image.file.byteCount()
    guard snapshot.l1Count == 0 || snapshot.l1Offset < fileEnd else {
      throw .corrupt("Snapshot L1 table lies past the end of the image file", at: snapshot.l1Offset)
    }
    self.image = image
    // What its L1 table is too short for was never written: it reads as what lies below.
    virtualSize = snapshot.record.virtualSize
    clusterSize = image.clusterSize
    backing = prologue.backing
    let l1 = try ResidentTable(store: image.file, hostOffset: snapshot.l1Offset, count: Int(snapshot.l1Count))
    mapping = Guarded(
      try Qcow2Mapping(header, l1: l1, file: image.file, order: nil, cacheByteCount: image.caches.l2))
  }

  func store(_ index: UInt16) -> any ByteStore { image.store(index) }

  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    try mapping.withLock { (mapping) throws(EngineError) in try mapping.extent(at: offset, limit: limit) }
  }

  func readCompressed(_ extent: Extent, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    let entry = try mapping.withLock { (mapping) throws(EngineError) in try mapping.entry(at: offset) }
    unsafe try image.codec.readCluster(entry, image.geometry, from: image.file, at: offset, into: buffer)
  }
}
