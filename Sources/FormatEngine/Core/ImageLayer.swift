/// The name of a file that lies below an image, as the image records it.
public struct BackingReference: Equatable, Sendable {
  /// As stored: relative to the image's folder unless it is absolute.
  public var name: String
  /// The recorded format, or nil where the image leaves it to probing.
  public var format: String?
  /// Where the file may lie on this host, best first, relative to the image's folder unless absolute: for formats
  /// that record several names, names of another system, or only an id. Nil: the name is one of this
  /// host's.
  public var candidates: [String]?
  /// Options for opening it, by the names of its format's `layerOptions`: which disk of a file is meant.
  public var options: [String: String] = [:]

  public init(name: String, format: String? = nil, candidates: [String]? = nil) {
    self.name = name
    self.format = format
    self.candidates = candidates
  }
}

/// A layer that records which state of which file it was made over.
public protocol ParentChecking: ImageLayer {
  /// Throws where `parent` is not what this layer's data are differences to.
  func checkParent(_ parent: any ImageLayer, path: String) throws(EngineError)
}

/// A layer that records a state of its parent which changes with every session that writes to the parent.
public protocol ParentRecording: ParentChecking, WritableLayer {
  /// `parent`, which is this layer's, is about to be changed by what is taken from here. When it returns the parent says that
  /// it is another one, and this layer knows it as that, both on disk; in between, too, the parent is one that is known, where
  /// the image has room to say so.
  func recordChange(ofParent parent: any ImageLayer) throws(EngineError)
  /// Records the state that `parent`, which is this layer's, has now: what was written to it was taken from here.
  /// On disk when it returns.
  func recordState(ofParent parent: any ImageLayer) throws(EngineError)
}

extension ParentRecording {
  /// For formats of which the parent says that it is another one when it is closed.
  public func recordChange(ofParent parent: any ImageLayer) throws(EngineError) {}
}

/// One opened image file. It speaks for its own file only; `ImageChain` stacks layers.
///
/// Any thread may call any method at any time.
public protocol ImageLayer: AnyObject, Sendable {
  /// Guest bytes. Changes only when the layer is resized or goes back to a snapshot.
  var virtualSize: UInt64 { get }
  /// Bytes in the unit of allocation; 0 for a format without one (raw).
  var clusterSize: UInt64 { get }
  /// The file that lies below, if the image names one.
  var backing: BackingReference? { get }
  /// Whether holes of the store are worth asking for: true for raw, and for images whose clusters were
  /// all set aside in advance. `ImageChain.extent` then looks for them.
  var storesHoles: Bool { get }
  /// Whether a copy that is left to the host takes its stored bytes as they are, and writes them so (`convert -C`).
  var isCopiedByHost: Bool { get }
  /// What the stored bytes are encrypted with: extents that are encrypted need it. Nil where nothing is, or
  /// where the layer was opened without its key.
  var cipher: LayerCipher? { get }

  /// Bytes of memory that its tables take for as long as it is open, where a small file can make them many: qcow2's.
  var residentByteCount: Int { get }

  /// The file that an extent's `store` number means.
  func store(_ index: UInt16) -> any ByteStore

  /// The longest run of like bytes from `offset` on, at most `limit` long, never empty.
  /// `offset < virtualSize`, and `limit` ends inside the disk.
  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent

  /// Unpacks the bytes from `offset` on, which lie in a compressed extent, into all of `buffer`.
  func readCompressed(_ extent: Extent, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(EngineError)

  /// The guest bytes that are packed together with the one at `offset`, which lies in a compressed extent:
  /// they are unpacked at once and kept. They end inside the disk.
  func packedUnit(at offset: UInt64) throws(EngineError) -> Range<UInt64>
}

extension ImageLayer {
  public var isCopiedByHost: Bool { false }
  public var residentByteCount: Int { 0 }

  /// For formats that pack whole clusters, whose size is a power of two.
  public func packedUnit(at offset: UInt64) throws(EngineError) -> Range<UInt64> {
    let start = offset.aligned(downTo: clusterSize)
    return start..<start + min(clusterSize, virtualSize - start)
  }
}

/// Room that a layer has set aside for guest bytes that are not yet written.
///
/// The writer fills the whole of `guestOffset ..< guestOffset + length`: the caller's bytes, and before
/// and after them what the guest read there until now. Only then does it `link`.
public struct Allocation: BitwiseCopyable, Sendable {
  /// First guest byte, at most the offset that was asked for.
  public var guestOffset: UInt64
  /// Guest bytes; reaches beyond the offset that was asked for.
  public var length: UInt64
  public var store: UInt16
  public var hostOffset: UInt64
  /// False: the guest reads this place already; write into it, there is nothing to fill or to link.
  public var isNew: Bool
  /// The room reads as zeros now, so zeros need not be written to it.
  public var readsAsZeros: Bool

  public init(
    guestOffset: UInt64, length: UInt64, store: UInt16 = 0, hostOffset: UInt64, isNew: Bool,
    readsAsZeros: Bool = false
  ) {
    self.guestOffset = guestOffset
    self.length = length
    self.store = store
    self.hostOffset = hostOffset
    self.isNew = isNew
    self.readsAsZeros = readsAsZeros
  }

  public var guestEnd: UInt64 { guestOffset + length }
}

/// A layer that can be changed. The chain's `RangeLock` keeps two changes of the same cluster apart;
/// the layer's own lock keeps its tables whole.
public protocol WritableLayer: ImageLayer {
  /// Where the guest reads the bytes from `offset` on, as far as they may be written over there and `limit` goes. Nil
  /// where `allocate` has to set room aside, or cannot tell without doing so.
  ///
  /// Unlike `allocate` it is asked by several at a time for parts of one unit; nobody changes what the unit's table
  /// entry says meanwhile.
  func roomInPlace(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation?
  /// Room for the guest bytes from `offset` on, at most up to `offset + limit` rounded up to the layer's
  /// unit, possibly less.
  func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation
  /// The room is written: let the guest read it, free what it read before.
  func link(_ allocation: Allocation) throws(EngineError)
  /// The room was not written: give it back.
  func abandon(_ allocation: Allocation)
  /// Makes guest bytes from `offset` on read as zeros without writing them, and says how many it did:
  /// 0 where only writing zeros will do (a part of a cluster). `keepingRoom`: what takes room in the file goes
  /// on taking it, so that writing there later needs none.
  func setZeros(at offset: UInt64, limit: UInt64, keepingRoom: Bool) throws(EngineError) -> UInt64
  /// Lets go of whole units from `offset` on; they read as `below` or as zeros afterwards. Says how many
  /// bytes it is done with, more than 0 (what it cannot free, it keeps).
  func discard(at offset: UInt64, limit: UInt64) throws(EngineError) -> UInt64
  /// All that was linked before is on disk when it returns.
  func flush() throws(EngineError)
  /// As `flush`, and takes off the mark that somebody is writing, where the format has one.
  func close() throws(EngineError)
}

extension WritableLayer {
  public func roomInPlace(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation? { nil }
}

/// Which units of a layer a copy stores packed.
public enum UnitPacking: Sendable {
  /// None, even where packing is asked for.
  case never
  /// All that get smaller, where packing is asked for.
  case onRequest
  /// Every one, zeros and those that get larger, too: the layer stores no other.
  case always
}

/// A layer that takes units already packed, and packs them itself: qcow2, streamOptimized VMDK.
public protocol CompressedWriting: WritableLayer {
  var unitPacking: UnitPacking { get }
  /// Guest bytes in one packed unit.
  var compressionUnit: UInt64 { get }
  /// Bytes that a packed unit has at most.
  var largestPackedUnit: UInt64 { get }
  /// Whether units must come in ascending order (append-only formats).
  var needsAscendingOffsets: Bool { get }
  /// One packer for each thread.
  func makePacker() throws(EngineError) -> any ClusterPacker
  /// Called once after the last unit.
  func finishCompressed() throws(EngineError)
  /// Stores packed units: `pieces` says how many bytes of `bytes` belong to which unit, in order.
  func storeCompressed(_ bytes: UnsafeRawBufferPointer, pieces: [PackedPiece]) throws(EngineError)
}

extension CompressedWriting {
  public var unitPacking: UnitPacking { .onRequest }
  /// Smaller than the unit by at least a byte, or it is stored as it is.
  public var largestPackedUnit: UInt64 { compressionUnit - 1 }
}

/// A unit's packed bytes inside a batch.
public struct PackedPiece: BitwiseCopyable, Sendable {
  public var guestOffset: UInt64
  public var byteCount: Int

  public init(guestOffset: UInt64, byteCount: Int) {
    self.guestOffset = guestOffset
    self.byteCount = byteCount
  }
}

/// Compresses one unit at a time, with contexts that it reuses. Belongs to one thread.
public protocol ClusterPacker: AnyObject {
  /// The number of bytes written to `target`, or nil where `source` does not get smaller than it.
  func pack(_ source: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer)
    throws(EngineError) -> Int?
}
