/// One snapshot of a bundle, or the disk as the guest has it: the images of its storages side by side. What they do
/// not store is in the parent snapshot, which is the same descriptor opened with another GUID.
final class ParallelsBundleLayer: ImageLayer {
  /// An image with its place in the disk.
  struct Part {
    let range: Range<UInt64>
    let file: NamedStore
    let layer: any ImageLayer
  }

  let virtualSize: UInt64
  let clusterSize: UInt64
  let backing: BackingReference?
  let cipher: LayerCipher? = nil
  private let guid: String
  private let bundle: ParallelsBundle
  /// In the order of the disk; empty where no file that the descriptor names is to be opened.
  let parts: [Part]

  static let guidOption = "snapshot-guid"

  init(_ bundle: ParallelsBundle, _ request: LayerRequest) throws(EngineError) {
    self.bundle = bundle
    let given = request.options[Self.guidOption].map(ParallelsBundle.normalised)
    guid = given ?? bundle.topGUID
    virtualSize = bundle.virtualSize
    let parent = bundle.parents[guid]
    backing = parent.map { parent in
      let name = ImageName.lastComponent(of: request.path)
      var reference = BackingReference(name: name, format: ParallelsFormat.name, candidates: [name])
      reference.options = [Self.guidOption: parent]
      return reference
    }
    if let given, given != bundle.topGUID, request.access == .readWrite {
      throw EngineError(.readOnly, "Snapshots of a bundle are not written to")
    }
    var partRequest = request
    partRequest.options = [:]
    partRequest.isOverlay = request.isOverlay || parent != nil
    let images = try bundle.images(guid)
    if partRequest.isOverlay, images.contains(where: { $0.kind == .plain }), parent != nil {
      throw .corrupt("Snapshot \(guid) has a plain image over that of another snapshot")
    }
    parts = request.references.isEnabled ? try Self.open(bundle.storages, images, partRequest) : []
    let units = parts.map(\.layer.clusterSize)
    clusterSize = units.max() ?? bundle.storages.first?.clusterSize ?? 0
    if request.access == .readWrite { try requireWritable() }
  }

  private static func open(
    _ storages: [ParallelsBundle.Storage], _ images: [ParallelsBundle.Image], _ request: LayerRequest
  ) throws(EngineError) -> [Part] {
    var parts: [Part] = []
    for (storage, image) in zip(storages, images) {
      do throws(EngineError) {
        let file = try request.references.open(
          image.file, for: .extent, namedBy: request.path, access: request.access,
          holding: image.kind == .plain ? .disk : .tables)
        var member = request
        member.path = file.path
        let layer: any ImageLayer
        switch image.kind {
        case .plain: layer = try FormatCatalog.plain.open(file, member)
        case .expanding:
          layer = try ParallelsLayer(
            file: file, header: try ParallelsHeader.read(from: file), request: member)
        }
        let named = NamedStore(role: "storage.\(parts.count)", path: file.path, store: file)
        parts.append(Part(range: storage.range, file: named, layer: layer))
      } catch {
        throw error.whileTrying("Could not open '\(image.file)' of the bundle")
      }
    }
    return parts
  }

  /// The chain keeps changes of one cluster apart by their places in the disk, so clusters of all images must lie in
  /// one grid.
  private func requireWritable() throws(EngineError) {
    for part in parts {
      let unit = part.layer.clusterSize
      guard unit == clusterSize || unit == 0 && clusterSize == 0,
        unit == 0 || part.range.lowerBound % unit == 0
      else { throw .unsupported("Bundles whose storages do not fit into one grid of clusters are only read") }
    }
  }

  var storesHoles: Bool { parts.contains { $0.layer.storesHoles } }

  func store(_ index: UInt16) -> any ByteStore { parts[Int(index)].layer.store(0) }

  /// The part with a guest byte of the disk.
  func part(at offset: UInt64) throws(EngineError) -> Int {
    var (low, high) = (0, parts.count)
    while low < high {
      let middle = (low + high) / 2
      if parts[middle].range.upperBound <= offset { low = middle + 1 } else { high = middle }
    }
    guard low < parts.count else { throw .unsupported("The files of the bundle are not open") }
    return low
  }

  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    let number = try part(at: offset)
    let part = parts[number]
    var extent = try part.layer.extent(
      at: offset - part.range.lowerBound, limit: min(limit, part.range.upperBound - offset))
    extent.store = UInt16(number)
    return extent
  }

  func readCompressed(_ extent: Extent, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    throw .corrupt("A Parallels image has no compressed data", at: offset)
  }
}

extension ParallelsBundle {
  /// The image of a snapshot in each storage.
  fileprivate func images(_ guid: String) throws(EngineError) -> [Image] {
    var images: [Image] = []
    for storage in storages {
      guard let image = storage.images[guid] else {
        throw .corrupt(
          "The bundle has no image \(guid) for the storage at sector \(storage.range.lowerBound / 512)")
      }
      images.append(image)
    }
    return images
  }
}

/// Each part is written as the image that it is.
extension ParallelsBundleLayer: WritableLayer {
  private func writable(_ number: Int) throws(EngineError) -> any WritableLayer {
    guard let layer = parts[number].layer as? any WritableLayer else {
      throw EngineError(.readOnly, "The image is opened read-only")
    }
    return layer
  }

  func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation {
    let number = try part(at: offset)
    let range = parts[number].range
    var room = try writable(number).allocate(
      at: offset - range.lowerBound, limit: min(limit, range.upperBound - offset))
    room.guestOffset += range.lowerBound
    room.store = UInt16(number)
    return room
  }

  /// An allocation as the part that it is in knows it.
  private func inPart(_ allocation: Allocation) -> Allocation {
    var room = allocation
    room.guestOffset -= parts[Int(allocation.store)].range.lowerBound
    room.store = 0
    return room
  }

  func link(_ allocation: Allocation) throws(EngineError) {
    try writable(Int(allocation.store)).link(inPart(allocation))
  }

  func abandon(_ allocation: Allocation) {
    (try? writable(Int(allocation.store)))?.abandon(inPart(allocation))
  }

  func setZeros(at offset: UInt64, limit: UInt64, keepingRoom: Bool) throws(EngineError) -> UInt64 {
    let number = try part(at: offset)
    let range = parts[number].range
    return try writable(number).setZeros(
      at: offset - range.lowerBound, limit: min(limit, range.upperBound - offset), keepingRoom: keepingRoom)
  }

  func discard(at offset: UInt64, limit: UInt64) throws(EngineError) -> UInt64 {
    let number = try part(at: offset)
    let range = parts[number].range
    return try writable(number).discard(
      at: offset - range.lowerBound, limit: min(limit, range.upperBound - offset))
  }

  func flush() throws(EngineError) {
    for number in parts.indices { try writable(number).flush() }
  }

  func close() throws(EngineError) {
    var failure: EngineError?
    for number in parts.indices {
      // The others are put in order also where one cannot be.
      do throws(EngineError) { try writable(number).close() } catch { failure = failure ?? error }
    }
    if let failure { throw failure }
  }
}

extension ParallelsBundleLayer: SelfDescribing {
  var formatSpecificInfo: [InfoField]? {
    let storages = bundle.storages.map { storage in
      let image = storage.images[guid]
      return InfoValue.record([
        InfoField("file", .text(image?.file ?? "")), InfoField("type", .text(image?.kind.rawValue ?? "")),
        InfoField("start", .integer(Int64(clamping: storage.range.lowerBound))),
        InfoField("end", .integer(Int64(clamping: storage.range.upperBound))),
      ])
    }
    return [InfoField(Self.guidOption, .text(guid)), InfoField("storages", .list(storages))]
  }

  var isDirty: Bool? { nil }
  var tellsUnit: Bool { false }
  var isEncrypted: Bool { false }
  var isCompressedByDefault: Bool { false }
  var extraFiles: [NamedStore] { parts.map(\.file) }
}
