/// What opening found out: the descriptor, and the files of the extents.
struct VMDKOpenedImage: Sendable {
  var descriptor: VMDKDescriptor
  var descriptorPlace: VMDKDescriptorPlace
  var extents: [VMDKOpenedExtent]
}

/// Where the descriptor's text is.
struct VMDKDescriptorPlace: Sendable {
  var file: any ByteStore
  /// In bytes; 0 for a file of its own.
  var offset: UInt64
  var contentIDRange: Range<Int>
  var parentContentIDRange: Range<Int>
  var longContentIDRange: Range<Int>?
  /// First byte behind the text, and how far it may reach; a file of its own may grow.
  var textEnd: Int
  var capacity: Int
}

/// An extent with its file, if it has one that is open.
struct VMDKOpenedExtent: Sendable {
  enum Content: Sendable {
    case zeros
    case flat(start: UInt64)
    case sparse(VMDKGrainGeometry)
    case spaceEfficient(VMDKSESparseGeometry)
    /// Opened for inspection: nobody looked into the file.
    case unopened
  }

  var line: VMDKExtentLine
  /// Guest bytes of the disk.
  var range: Range<UInt64>
  var content: Content
  /// Nil for zeros.
  var file: NamedStore?
  /// The image file itself, and not one that it names.
  var isOwnFile = false

  var geometry: VMDKGrainGeometry? {
    if case .sparse(let geometry) = content { geometry } else { nil }
  }

  /// Guest bytes in a grain, nil where there are none.
  var grainSize: UInt64? {
    if case .spaceEfficient = content { VMDKSESparseGeometry.grainSize } else { geometry?.grainSize }
  }

  var isFlat: Bool {
    if case .flat = content { true } else { false }
  }

  /// Each kind of extent gets its own map here.
  func makeMap(hasParent: Bool, cacheByteCount: UInt64) throws(EngineError) -> any VMDKExtentMap {
    guard line.access != .none else {
      throw EngineError(.permissionDenied, "The extent '\(line.fileName)' is marked NOACCESS")
    }
    switch (content, file?.store) {
    case (.zeros, _): return VMDKZeroExtent()
    case (.flat(let start), let store?): return VMDKFlatExtent(store, from: start)
    case (.sparse(let geometry), let store?):
      return try VMDKSparseExtent(geometry, file: store, hasParent: hasParent, cacheByteCount: cacheByteCount)
    case (.spaceEfficient(let geometry), let store?):
      return try VMDKSESparseExtent(geometry, file: store, cacheByteCount: cacheByteCount)
    default: throw .unsupported("The extent '\(line.fileName)' is not open")
    }
  }
}
