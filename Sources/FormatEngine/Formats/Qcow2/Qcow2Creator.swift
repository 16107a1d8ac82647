extension Qcow2Format: CreatableFormat {
  public static let supportsBacking = true
  public static let supportsCompression = true
  public static func makesKeys(_ options: OptionValues) -> Bool { options.text("encrypt.format") == "luks" }
  public static var createOptions: OptionSchema { Qcow2CreateOptions.schema }

  public static func create(on file: any ByteStore, _ request: CreateRequest) throws(EngineError) {
    let options = try Qcow2CreateOptions(request)
    let layout = try Qcow2NewLayout(options, virtualSize: request.virtualSize)
    let prologue = try Self.prologue(options, layout, request)
    let head = try prologue.serialised()
    try file.resize(to: 0)
    try layout.writeRefcounts(to: file)
    // The header last: until it is there the file is no image.
    try file.resize(to: layout.byteCount)
    let encryption = try options.encryption.map { (encryption) throws(EngineError) in
      try encryption.create(in: file, at: layout.encryptionOffset)
    }
    try file.flush()
    try file.write(bytes: head, at: 0)
    try file.flush()
    let dataFile = try createDataFile(options, request)
    try dataFile?.flush()
    if options.preallocation != .off {
      let named = dataFile.map { NamedStore(role: "data-file", path: $0.path, store: $0) }
      let layer = try Qcow2Layer(
        file: file, prologue: try Qcow2Prologue.read(from: file), dataFile: named, encryption: encryption,
        request: LayerRequest(path: request.path, access: .readWrite, references: request.references))
      try Qcow2Preallocator(layer, options.preallocation).run(from: 0)
      try layer.close()
    }
  }

  private static func prologue(
    _ options: Qcow2CreateOptions, _ layout: Qcow2NewLayout, _ request: CreateRequest
  ) throws(EngineError) -> Qcow2Prologue {
    var header = Qcow2Header(
      version: options.version, clusterBits: UInt32(options.geometry.clusterBits),
      virtualSize: request.virtualSize, l1Count: UInt32(layout.l1Count),
      l1Offset: layout.l1Count == 0 ? 0 : layout.l1Offset,
      refcountTableOffset: options.geometry.clusterSize,
      refcountTableClusters: UInt32(layout.tableClusters))
    var extensions = Qcow2HeaderExtensions()
    if let encryption = options.encryption {
      header.encryptionMethod = encryption.method.rawValue
      if encryption.headerByteCount > 0 {
        extensions.set(
          Qcow2HeaderExtensions.Kind.encryption,
          Qcow2Encryption.pointer(to: layout.encryptionOffset, byteCount: encryption.headerByteCount))
      }
    }
    guard options.version >= 3 else {
      header.headerLength = Qcow2Header.version2Length
      return Qcow2Prologue(header: header, extensions: extensions, backing: request.backing)
    }
    header.headerLength = Qcow2Header.writtenLength
    header.refcountOrder = options.refcountOrder
    header.compressionType = options.compression.rawValue
    if options.compression != .deflate { header.incompatibleFeatures.insert(.compressionType) }
    if options.geometry.hasSubclusters { header.incompatibleFeatures.insert(.extendedL2) }
    if options.hasLazyRefcounts { header.compatibleFeatures.insert(.lazyRefcounts) }
    if let name = options.dataFile {
      header.incompatibleFeatures.insert(.externalDataFile)
      if options.isDataFileRaw { header.autoclearFeatures.insert(.rawExternalData) }
      extensions.set(Qcow2HeaderExtensions.Kind.dataFile, name.hostBytes)
    }
    var prologue = Qcow2Prologue(header: header, extensions: extensions, backing: request.backing)
    prologue.nameFeatures()
    return prologue
  }

  /// The data file is as long as the disk, whoever else reads it.
  private static func createDataFile(_ options: Qcow2CreateOptions, _ request: CreateRequest)
    throws(EngineError) -> FileStore?
  {
    guard let name = options.dataFile else { return nil }
    let store = try request.references.create(name, for: .dataFile, namedBy: request.path)
    try store.resize(to: request.virtualSize)
    return store
  }
}

/// Where the tables of a new image stand: header, refcount table, refcount blocks, L1 table, LUKS header.
struct Qcow2NewLayout {
  let geometry: Qcow2Geometry
  let refcountOrder: UInt64
  let tableClusters: UInt64
  let blockCount: UInt64
  let l1Count: UInt64
  private let l1Clusters: UInt64
  private let encryptionByteCount: UInt64

  init(_ options: Qcow2CreateOptions, virtualSize: UInt64) throws(EngineError) {
    geometry = options.geometry
    refcountOrder = UInt64(options.refcountOrder)
    l1Count = geometry.l1Count(forVirtualSize: virtualSize)
    guard virtualSize <= maximumFileOffset, l1Count * 8 <= Qcow2Header.maximumL1Bytes else {
      throw EngineError(
        .tooLarge, "The image size is too large for file format 'qcow2' (try using a larger cluster size)")
    }
    let size = geometry.clusterSize
    let coverageBits = geometry.clusterBits + 3 - refcountOrder
    l1Clusters = (l1Count * 8).dividedRoundingUp(by: size)
    encryptionByteCount = options.encryption?.headerByteCount ?? 0
    let content = 1 + l1Clusters + encryptionByteCount.dividedRoundingUp(by: size)
    var tables: UInt64 = 1
    var blocks: UInt64 = 1
    while true {
      let neededBlocks = (content + tables + blocks).dividedRoundingUp(by: 1 << coverageBits)
      let neededTables = (neededBlocks * 8).dividedRoundingUp(by: size)
      if neededBlocks <= blocks && neededTables <= tables { break }
      (blocks, tables) = (max(blocks, neededBlocks), max(tables, neededTables))
    }
    tableClusters = tables
    blockCount = blocks
  }

  var firstBlock: UInt64 { 1 + tableClusters }
  var l1Offset: UInt64 { (firstBlock + blockCount) << geometry.clusterBits }
  var encryptionOffset: UInt64 { l1Offset + l1Clusters << geometry.clusterBits }
  var byteCount: UInt64 {
    encryptionByteCount > 0 ? encryptionOffset + encryptionByteCount : l1Offset + l1Count * 8
  }
  /// Clusters in use once the image is there.
  var usedClusters: UInt64 {
    firstBlock + blockCount + l1Clusters + encryptionByteCount.dividedRoundingUp(by: geometry.clusterSize)
  }

  func writeRefcounts(to file: any ByteStore) throws(EngineError) {
    let size = geometry.clusterSize
    var table: [UInt8] = []
    for block in 0..<blockCount { table.append(bigEndian: (firstBlock + block) << geometry.clusterBits) }
    try file.write(bytes: table, at: size)
    let coverage: UInt64 = 1 << (geometry.clusterBits + 3 - refcountOrder)
    let buffer = AlignedBuffer(byteCount: Int(size))
    for block in 0..<blockCount {
      unsafe buffer.bytes.initializeMemory(as: UInt8.self, repeating: 0)
      let counts = unsafe Qcow2RefcountSlice(bytes: buffer.bytes, order: refcountOrder)
      for index in 0..<min(coverage, usedClusters - block * coverage) { counts[index] = 1 }
      unsafe try file.write(
        UnsafeRawBufferPointer(buffer.bytes), at: (firstBlock + block) << geometry.clusterBits)
    }
  }
}

/// Sets clusters aside for a part of a disk that holds nothing yet.
struct Qcow2Preallocator {
  private let layer: Qcow2Layer
  private let preallocation: Preallocation

  init(_ layer: Qcow2Layer, _ preallocation: Preallocation) {
    self.layer = layer
    self.preallocation = preallocation
  }

  /// Everything from `start` on, a multiple of the cluster size.
  func run(from start: UInt64, _ progress: Progress = .none) throws(EngineError) {
    let dataFile = layer.dataFile?.store
    let dataEnd = try dataFile?.byteCount() ?? 0
    var offset = start
    while offset < layer.virtualSize {
      try progress.step(offset - start, of: layer.virtualSize - start)
      let room = try layer.allocate(at: offset, limit: layer.virtualSize - offset)
      let store = layer.store(room.store)
      do throws(EngineError) {
        try setAside(room, in: store)
      } catch {
        layer.abandon(room)
        throw error
      }
      try layer.setAside(room)
      offset = room.guestEnd
    }
    // Whole clusters were set aside; a data file ends where the disk does.
    let end = max(dataEnd, layer.virtualSize)
    if let dataFile, try dataFile.byteCount() > end { try dataFile.resize(to: end) }
  }

  private func setAside(_ room: Allocation, in store: any ByteStore) throws(EngineError) {
    switch preallocation {
    case .off, .metadata:
      // A cluster that was in use before still has its old bytes.
      if !room.readsAsZeros, room.hostOffset < (try store.byteCount()) {
        try store.writeZeros(at: room.hostOffset, count: room.length, freeing: true)
      }
    case .falloc where !room.readsAsZeros:
      try store.writeZeros(at: room.hostOffset, count: room.length, freeing: false)
    case .falloc, .full: try store.setAside(at: room.hostOffset, count: room.length, preallocation)
    }
    // Entries must not point past the end of the file, after a crash neither.
    let end = room.hostOffset + room.length
    if try store.byteCount() < end { try store.resize(to: end) }
  }
}
