extension VHDXFormat: CreatableFormat {
  public static let supportsCompression = false
  public static let recordsIdentity = true
  public static var createOptions: OptionSchema { VHDXCreateOptions.schema }

  public static func create(on file: any ByteStore, _ request: CreateRequest) throws(EngineError) {
    let parent = try request.backing.map { (backing) throws(EngineError) in
      try Self.parent(backing, of: request)
    }
    let options = try VHDXCreateOptions(
      request.options, virtualSize: request.virtualSize, parent: parent?.metadata)
    let sectorSize = parent?.metadata.sectorSize ?? 512
    guard request.virtualSize.isAligned(to: sectorSize) else {
      throw .invalid("The size must be a multiple of \(sectorSize), the sectors of the parent")
    }
    var diskID = try VHDXGuid.new(request.identities, for: "disk")
    if let parent { diskID = parent.metadata.diskID }
    var metadata = VHDXMetadata(
      blockSize: options.blockSize, leavesBlocksAllocated: options.isFixed,
      virtualSize: request.virtualSize, diskID: diskID, sectorSize: sectorSize,
      physicalSectorSize: parent?.metadata.physicalSectorSize ?? 512)
    metadata.parent = try parent.flatMap { (parent) throws(EngineError) in
      try request.backing.map { (backing) throws(EngineError) in
        try VHDXParentLocator(name: backing.name, linkage: parent.header.dataWriteGuid)
      }
    }
    let entry = VHDXEntry(parent == nil && options.marksZeros ? .zero : .notPresent)
    try VHDXNewImage(metadata: metadata, logLength: options.logLength, entry: entry)
      .write(to: file, request.identities)
  }

  /// What the parent of a new differencing disk is.
  private static func parent(_ backing: BackingReference, of request: CreateRequest) throws(EngineError)
    -> VHDXImage
  {
    guard backing.format == nil || backing.format == name else {
      throw .invalid("The parent of a VHDX must be a VHDX, too")
    }
    do throws(EngineError) {
      let file = try request.references.open(
        backing.name, for: .parent, namedBy: request.path, access: .readOnly)
      let references = ReferenceOpener(policy: request.references.policy, isEnabled: false)
      var open = LayerRequest(path: file.path, access: .readOnly, references: references)
      open.isForInspection = true
      guard let layer = try Self.open(file, open) as? VHDXLayer else {
        throw .invalid("The parent of a VHDX must be a VHDX, too")
      }
      return layer.image
    } catch {
      throw error.whileTrying("Could not open the parent '\(backing.name)'")
    }
  }
}

/// Where everything in a new image stands: headers, log, BAT, metadata, and a fixed image's blocks.
struct VHDXNewImage {
  var metadata: VHDXMetadata
  var logLength = MiB
  /// What the BAT has for each block of a dynamic image.
  var entry = VHDXEntry(.notPresent)

  private static let creator = "imgfs"
  private var geometry: VHDXGeometry { metadata.geometry }
  private var log: UInt64 { MiB }
  private var bat: UInt64 { log + logLength }
  /// Never none: it is a region of its own.
  private var batLength: UInt64 { max(promisedEntryCount * 8, 1).aligned(upTo: MiB) }
  /// QEMU counts the bitmaps of an empty disk as those before its block number 2^32 - 1, and does not open images
  /// that have no room for their entries.
  private var promisedEntryCount: UInt64 {
    geometry.blockCount > 0 || geometry.hasParent
      ? geometry.entryCount : UInt64(UInt32.max) >> geometry.chunkBits
  }
  private var metadataRegion: UInt64 { bat + batLength }
  private var blocks: UInt64 { metadataRegion + MiB }

  /// Bytes of the file without any block.
  var emptyByteCount: UInt64 { blocks }

  private var regions: VHDXRegions {
    VHDXRegions(entries: [
      .init(guid: VHDXRegions.bat, hostOffset: bat, length: UInt32(batLength), isRequired: true),
      .init(
        guid: VHDXRegions.metadata, hostOffset: metadataRegion, length: UInt32(MiB), isRequired: true),
    ])
  }

  func write(to file: any ByteStore, _ identities: IdentitySource = .unique) throws(EngineError) {
    try file.resize(to: 0)
    let isFixed = metadata.leavesBlocksAllocated
    try file.resize(to: blocks + (isFixed ? geometry.blockCount * geometry.blockSize : 0))
    try writeBAT(to: file)
    try file.write(bytes: metadata.serialised(), at: metadataRegion)
    let table = regions.serialised()
    for hostOffset in VHDXRegions.hostOffsets { try file.write(bytes: table, at: hostOffset) }
    var header = VHDXHeader(
      sequenceNumber: 1, fileWriteGuid: try .new(identities, for: "file write"),
      dataWriteGuid: try .new(identities, for: "data write"), logLength: UInt32(logLength),
      logOffset: log)
    for hostOffset in VHDXHeader.hostOffsets {
      try file.write(bytes: header.serialised(), at: hostOffset)
      header.sequenceNumber += 1
    }
    try file.flush()
    // The signature last: until it is there the file is no image.
    try file.write(bytes: VHDXFileIdentifier.serialised(creator: Self.creator), at: 0)
    try file.flush()
  }

  private func writeBAT(to file: any ByteStore) throws(EngineError) {
    let isFixed = metadata.leavesBlocksAllocated
    guard isFixed || entry != VHDXEntry(.notPresent) else { return }
    var bytes: [UInt8] = []
    var written: UInt64 = 0
    for block in 0..<geometry.blockCount {
      // Between chunks there are entries of bitmaps, which stay empty.
      while written + UInt64(bytes.count) < geometry.entryIndex(ofBlock: block) * 8 {
        bytes.append(littleEndian: UInt64(0))
      }
      let place = blocks + block * geometry.blockSize
      bytes.append(littleEndian: isFixed ? VHDXEntry(.fullyPresent, hostOffset: place).raw : entry.raw)
      if bytes.count >= Int(MiB) {
        try file.write(bytes: bytes, at: bat + written)
        written += UInt64(bytes.count)
        bytes.removeAll(keepingCapacity: true)
      }
    }
    try file.write(bytes: bytes, at: bat + written)
  }
}

extension VHDXFormat: Measurable {
  public static func measure(_ request: MeasureRequest) throws(EngineError) -> Measurement {
    let size = request.virtualSize.aligned(upTo: 512)
    let options = try VHDXCreateOptions(request.options, virtualSize: size, parent: nil)
    let metadata = VHDXMetadata(
      blockSize: options.blockSize, virtualSize: size, diskID: .zero, sectorSize: 512,
      physicalSectorSize: 512)
    let empty = VHDXNewImage(metadata: metadata, logLength: options.logLength).emptyByteCount
    let full = empty + metadata.geometry.blockCount * options.blockSize
    let needed = empty + (try request.neededByteCount(unit: options.blockSize))
    return Measurement(required: options.isFixed ? full : needed, fullyAllocated: full)
  }
}
