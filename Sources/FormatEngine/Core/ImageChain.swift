/// One file of a chain: the layer, and where it came from.
public struct ChainMember: Sendable {
  public let layer: any ImageLayer
  /// The image file itself.
  public let file: any ByteStore
  /// The path of the file; names that the image records are relative to its folder.
  public let path: String
  let nodeName: NodeName
  /// As `-f` takes it.
  public let formatName: String
  /// Nobody said what format it has: its first bytes did.
  public let isProbed: Bool
  /// What it was opened by; nil for layers that stand for another, such as a snapshot.
  let node: NodeOptions?
  let cache: CacheMode
  /// Its files that are locked.
  let locked: LockedFiles?

  public init(layer: any ImageLayer, file: any ByteStore, path: String, formatName: String) {
    self.init(layer: layer, file: file, path: path, nodeName: NodeName(path: path), formatName: formatName)
  }

  init(
    layer: any ImageLayer, file: any ByteStore, path: String, nodeName: NodeName, formatName: String,
    node: NodeOptions? = nil, isProbed: Bool = false, cache: CacheMode = .writeback,
    locked: LockedFiles? = nil
  ) {
    self.node = node
    self.isProbed = isProbed
    self.cache = cache
    self.locked = locked
    self.layer = layer
    self.file = file
    self.path = path
    self.nodeName = nodeName
    self.formatName = formatName
  }

  /// Whether it is bytes as they are, without a format.
  var isPlain: Bool {
    formatName == FormatCatalog.plain.name || FormatCatalog.format(named: formatName) == nil
  }

  /// As `info` shows it: the path, or a `json:` name where the path does not say all.
  public var name: String { nodeName.text }

  /// The files of the host that it lies in, but for those that the image names itself.
  public var hostFiles: [FileStore] {
    if let file = file.hostFile { return [file] }
    return inner?.disk.members.flatMap(\.hostFiles) ?? []
  }

  /// What there is to see of all files of the host that it consists of: its own one first, then those that the image names
  /// itself. One that cannot be looked at is left out.
  public var fileStatuses: [HostFiles.Status] {
    let named = (layer as? any SelfDescribing)?.extraFiles.map(\.store) ?? []
    return ([file] + named).flatMap { store in
      if let disk = ((store as? DebugStore)?.below ?? store) as? DiskStore {
        return disk.disk.members.flatMap(\.fileStatuses)
      }
      return store.hostStatus.map { [$0] } ?? []
    }
  }

  /// Whether its file, or the image that it lies in, tells nothing without a passphrase.
  var isEncrypted: Bool {
    layer.cipher != nil || inner?.disk.members.contains(where: \.isEncrypted) == true
  }

  /// The disk that is the file of this one, nil where that is a file of the host.
  var inner: DiskStore? { ((file as? DebugStore)?.below ?? file) as? DiskStore }

  /// Its own locked files, and those of an image that it lies in.
  var lockedFiles: [LockedFiles] {
    (locked.map { [$0] } ?? []) + (inner?.disk.members.flatMap(\.lockedFiles) ?? [])
  }
}

extension ByteStore {
  /// The file of the host that it is, with or without rules for its failures.
  var hostFile: FileStore? { ((self as? DebugStore)?.below ?? self) as? FileStore }

  /// Whether it is a device of the host, which has a size of its own.
  public var isDevice: Bool { hostFile?.kind.isDevice ?? false }
}

/// Where guest bytes are: the depth of the layer that answers, 0 for the top, and its extent.
/// `below` means that no layer has them, so they read as zeros.
public struct LocatedExtent: BitwiseCopyable, Equatable, Sendable {
  public var depth: Int
  public var extent: Extent

  public init(depth: Int, extent: Extent) {
    self.depth = depth
    self.extent = extent
  }

  public var readsAsZeros: Bool { extent.source == .below || extent.readsAsZeros }
}

/// The disk as a guest or a reader sees it: layers stacked, the top one first. A snapshot, or a single
/// layer with what lies below it, is again a chain.
///
/// Lock order: `RangeLock` -> `ClusterCache.using` -> the layer's own lock -> `ClusterCache`.
public final class ImageChain: Sendable {
  public let members: [ChainMember]
  let layers: [any ImageLayer]
  /// The top layer, if the chain was opened for writing and its format can.
  let writer: (any WritableLayer)?
  /// Whether the top layer is one that somebody changes meanwhile: reads keep out of the way of that.
  let isChanging: Bool
  /// Those of the chain that changes the top layer, where it is the same.
  let ranges: RangeLock
  /// Of the chain that this one is a part of, too.
  let unpacked: ClusterCache
  /// Where this chain's top layer is in the one that `unpacked` belongs to.
  let unpackedDepth: Int
  /// Bytes of the disk in which each layer looks for a run at a time.
  let longestRuns: [UInt64]
  let fillBuffers = BufferPool(bufferByteCount: Int(2 * MiB), maximumKept: 4)

  /// `members` must not be empty.
  public init(members: [ChainMember], access: FileAccess = .readOnly) {
    precondition(!members.isEmpty)
    self.members = members
    layers = members.map(\.layer)
    writer = access == .readWrite ? members[0].layer as? any WritableLayer : nil
    isChanging = writer != nil
    ranges = RangeLock()
    (unpacked, unpackedDepth) = (ClusterCache(), 0)
    longestRuns = layers.map(Self.longestRun)
  }

  /// Members of `chain` as a read-only disk, the top one at `depth`.
  private init(_ members: [ChainMember], from depth: Int, of chain: ImageChain) {
    self.members = members
    layers = members.map(\.layer)
    writer = nil
    isChanging = depth == 0 && chain.isChanging
    ranges = isChanging ? chain.ranges : RangeLock()
    (unpacked, unpackedDepth) = (chain.unpacked, chain.unpackedDepth + depth)
    longestRuns = layers.map(Self.longestRun)
  }

  /// A million entries of a table, which are looked through in no time: a table may have a hundred times as many, and a
  /// layer would look through all of a long hole's again for each run of the data below it.
  private static func longestRun(in layer: any ImageLayer) -> UInt64 {
    layer.clusterSize > 0 ? min(layer.clusterSize, TiB) * MiB : .max
  }

  public var top: any ImageLayer { layers[0] }
  /// Guest bytes, as the top layer has it.
  public var virtualSize: UInt64 { layers[0].virtualSize }
  public var isWritable: Bool { writer != nil }
  /// Whether any byte can be written at any time: not in formats that are written once, from front to back.
  public var isWritableAnywhere: Bool {
    guard let writer else { return false }
    return (writer as? any CompressedWriting)?.unitPacking != .always
  }

  /// The layers from `depth` down as a read-only disk of their own. `depth` must be a layer's.
  /// It shows what is written to this chain as it happens.
  public func lower(from depth: Int) -> ImageChain {
    ImageChain(Array(members[depth...]), from: depth, of: self)
  }

  /// What the file at `depth` stores itself, as a read-only disk: all else reads as zeros and is a hole. Zeros that the
  /// file marks as such, whatever lies below, are no different here; `locate` on this chain tells them apart
  /// (`zeros`, and `below`).
  public func delta(at depth: Int) -> ImageChain {
    ImageChain([members[depth]], from: depth, of: self)
  }

  /// The layer at `depth` in a state of its own, over the layers below it: how a snapshot is read.
  public func replacing(layerAt depth: Int, with layer: any ImageLayer) -> ImageChain {
    let old = members[depth]
    let top = ChainMember(
      layer: layer, file: old.file, path: old.path, nodeName: old.nodeName, formatName: old.formatName,
      locked: old.locked)
    return ImageChain(members: top.over(members[(depth + 1)...]))
  }

  /// All that was written before is on disk when it returns.
  public func flush() throws(EngineError) {
    try writer?.flush()
  }

  /// As `flush`, and the image says of itself that nobody is writing to it any more; others may open it. Nothing is
  /// to be written afterwards. `note` is run, also where this throws, when nothing is written any more and before anybody
  /// else may.
  public func close(beforeUnlocking note: () -> Void = {}) throws(EngineError) {
    defer { members[0].locked?.unlock() }
    do throws(EngineError) {
      try writer?.close()
    } catch {
      note()
      throw error
    }
    if let inner = members[0].inner { try inner.close(beforeUnlocking: note) } else { note() }
  }

  /// Closes an image of which a change has failed. Where there was no room for tables, what was set aside for them is given
  /// back: nothing leads to it.
  public func closeAfterFailure() {
    defer { members[0].locked?.unlock() }
    do throws(EngineError) {
      try writer?.close()
    } catch {
      // Only by what is on disk for certain can be told what leads nowhere.
      let file = members[0].file
      if let layer = top as? any Repairable, (try? file.flush()) != nil {
        _ = try? layer.repair(.leaks, progress: .none)
      }
    }
    try? members[0].inner?.close()
  }

  /// Runs a change of the whole image - a snapshot, another size - while nobody reads or writes the disk.
  public func changingWhole<T>(_ body: () throws(EngineError) -> T) throws(EngineError) -> T {
    try ranges.withRange(0..<UInt64.max, exclusive: true) { () throws(EngineError) in
      unpacked.invalidate(0..<UInt64.max)
      defer { unpacked.invalidate(0..<UInt64.max) }
      return try body()
    }
  }

  /// Throws where a request leaves the disk. What is true afterwards stays true only while the bytes are held in `ranges`:
  /// somebody may be giving the disk another size.
  func check(_ offset: UInt64, _ count: UInt64) throws(EngineError) {
    let size = virtualSize
    guard offset <= size, count <= size - offset else {
      throw EngineError(
        .outsideDisk, "Request for \(count) bytes at \(offset) leaves the disk of \(size) bytes",
        offset: offset)
    }
  }
}
