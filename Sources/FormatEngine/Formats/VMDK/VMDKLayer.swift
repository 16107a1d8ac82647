/// An opened VMDK image: one disk made of extents, one behind the other.
final class VMDKLayer: ImageLayer {
  let virtualSize: UInt64
  let clusterSize: UInt64
  let backing: BackingReference?
  let storesHoles: Bool
  let path: String
  let createType: String
  let hasChangeTracking: Bool
  let descriptorPlace: VMDKDescriptorPlace
  let extents: [VMDKOpenedExtent]
  /// The files of the extents, as guest bytes go through them.
  private let stores: [any ByteStore]
  let file: any ByteStore
  let identities: IdentitySource
  /// By the number of the extent, nil where nothing is packed.
  private let codecs: [VMDKGrainCodec?]
  /// Protects the tables and the content id, never data I/O. After `RangeLock`, before `ClusterCache`.
  let state: Guarded<VMDKState>
  /// Where packed grains go, nil before the first one. Held while they are written: they come in turn, so nobody waits
  /// for it. Before `state`.
  let stream = Guarded<VMDKStreamWriter?>(nil)

  init(_ image: VMDKOpenedImage, file: any ByteStore, path: String, _ identities: IdentitySource)
    throws(EngineError)
  {
    self.file = file
    self.identities = identities
    self.path = path
    extents = image.extents
    virtualSize = image.extents.last?.range.upperBound ?? 0
    createType = image.descriptor.createType
    hasChangeTracking = image.descriptor.hasChangeTracking
    descriptorPlace = image.descriptorPlace
    backing = image.descriptor.backing
    let grainSizes = image.extents.compactMap(\.grainSize)
    clusterSize = grainSizes.max() ?? 0
    storesHoles = image.extents.contains { $0.isFlat }
    stores = image.extents.map { ($0.file?.store ?? file).guestBytes }
    codecs = image.extents.map { extent in
      guard let geometry = extent.geometry, geometry.isPacked, let file = extent.file?.store else {
        return nil
      }
      return VMDKGrainCodec(geometry, file: file)
    }
    state = Guarded(VMDKState(image))
  }

  var contentID: UInt32 { state.withLock { $0.contentID } }
  var parentContentID: UInt32 { state.withLock { $0.parentContentID } }

  func store(_ index: UInt16) -> any ByteStore { stores[Int(index)] }

  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    try state.withLock { (state) throws(EngineError) in
      let (index, start, end) = state.extent(holding: offset)
      var found = try state.map(of: index).extent(at: offset - start, limit: min(limit, end - offset))
      found.store = UInt16(truncatingIfNeeded: index)
      return found
    }
  }

  /// Grains end with their extents.
  func packedUnit(at offset: UInt64) throws(EngineError) -> Range<UInt64> {
    let (index, start, end) = state.withLock { $0.extent(holding: offset) }
    guard let geometry = extents[index].geometry else {
      throw .corrupt("The extent has no grains", at: offset)
    }
    let grain = offset - geometry.offsetInGrain(offset - start)
    return grain..<min(grain + geometry.grainSize, end)
  }

  func readCompressed(_ extent: Extent, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    let index = Int(extent.store)
    guard index < codecs.count, let codec = codecs[index], let geometry = extents[index].geometry,
      let host = extent.hostOffset
    else { throw .corrupt("The extent has no packed grains", at: offset) }
    let first = Int(geometry.offsetInGrain(offset - extents[index].range.lowerBound))
    let grainEnd = min(extents[index].range.upperBound, offset - UInt64(first) + geometry.grainSize)
    let whole = Int(grainEnd - (offset - UInt64(first)))
    guard first + buffer.count <= whole else {
      throw .corrupt("Compressed extent is longer than its grain", at: offset)
    }
    if first == 0 && buffer.count == whole { return unsafe try codec.unpackGrain(at: host, into: buffer) }
    let grain = AlignedBuffer(byteCount: whole)
    unsafe try codec.unpackGrain(at: host, into: grain.bytes)
    unsafe buffer.copyMemory(
      from: UnsafeRawBufferPointer(rebasing: grain.bytes[first..<first + buffer.count]))
  }
}

/// What an opened image keeps in its lock.
struct VMDKState {
  private(set) var extents: [VMDKOpenedExtent]
  private let hasParent: Bool
  /// By the number of the extent; made when it is first needed, since a disk may have thousands.
  private var maps: [(any VMDKExtentMap)?]
  var contentID: UInt32
  /// Which state of the parent the grains are differences to.
  var parentContentID: UInt32
  /// The one that it may have become.
  var nextParentContentID: UInt32?
  var nextParentContentIDRange: Range<Int>?
  /// The content id on disk says that the content changed since the image was opened.
  var hasNewContentID = false
  private var isStreaming = false
  private let cacheByteCount: UInt64
  /// The extent that answered last: most questions are about the same one.
  private var latest = 0

  /// Memory for the tables of all extents together: those of 512 GiB with 64 KiB grains.
  private static let cacheByteCount: UInt64 = 32 * MiB

  init(_ image: VMDKOpenedImage) {
    extents = image.extents
    hasParent = image.descriptor.hasParent
    maps = Array(repeating: nil, count: image.extents.count)
    contentID = image.descriptor.contentID
    parentContentID = image.descriptor.parentContentID
    nextParentContentID = image.descriptor.nextParentContentID
    nextParentContentIDRange = image.descriptor.nextParentContentIDRange
    cacheByteCount = max(Self.cacheByteCount / UInt64(max(image.extents.count, 1)), 64 * KiB)
  }

  /// The extent that holds a guest offset, which is inside the disk: its number, its first byte, its end.
  mutating func extent(holding offset: UInt64) -> (index: Int, start: UInt64, end: UInt64) {
    if !extents[latest].range.contains(offset) {
      var (low, high) = (0, extents.count - 1)
      while low < high {
        let middle = (low + high) / 2
        if extents[middle].range.upperBound <= offset { low = middle + 1 } else { high = middle }
      }
      latest = low
    }
    return (latest, extents[latest].range.lowerBound, extents[latest].range.upperBound)
  }

  mutating func map(of index: Int) throws(EngineError) -> any VMDKExtentMap {
    guard !isStreaming else { throw .unsupported("The image is being written: it has no tables yet") }
    if let map = maps[index] { return map }
    let map = try extents[index].makeMap(hasParent: hasParent, cacheByteCount: cacheByteCount)
    maps[index] = map
    return map
  }

  /// The tables of the only extent come when all its grains are there.
  mutating func beginStream() { isStreaming = true }

  /// The tables are there.
  mutating func endStream(_ geometry: VMDKGrainGeometry) {
    extents[0].content = .sparse(geometry)
    maps[0] = nil
    isStreaming = false
  }

  /// Those that were used.
  var openMaps: [any VMDKExtentMap] { maps.compactMap { $0 } }
}

extension VMDKDescriptor {
  /// The file below, by its recorded name: as it stands, or beside this file where both were moved.
  fileprivate var backing: BackingReference? {
    guard hasParent else { return nil }
    let hint = parentFileNameHint ?? ""
    // QEMU records trees of drivers, too.
    if ImageName.jsonText(of: hint) != nil { return BackingReference(name: hint, format: VMDKFormat.name) }
    var candidates = [hint]
    if let last = hint.split(whereSeparator: { $0 == "/" || $0 == "\\" }).last, last != hint[...] {
      candidates.append(String(last))
    }
    return BackingReference(
      name: hint, format: VMDKFormat.name, candidates: candidates.filter { !$0.isEmpty })
  }
}
