/// All that the first cluster says: header, extensions, the backing file's name.
struct Qcow2Prologue: Equatable, Sendable {
  var header: Qcow2Header
  var extensions: Qcow2HeaderExtensions
  var backing: BackingReference?

  /// Reads and checks it, but for unknown features: those are refused where the image is used.
  static func read(from file: any ByteStore) throws(EngineError) -> Qcow2Prologue {
    let head = try file.bytes(at: 0, count: Int(min(512, try file.byteCount())))
    let header = try head.parsed { (span) throws(EngineError) in try Qcow2Header.parse(span) }
    // The feature names are wanted for the message about a feature that is not known, so they are read
    // before the header is held to the rules of the features that are.
    guard Qcow2Geometry.clusterBitsRange.contains(header.clusterBits) else {
      try header.validate()
      throw .corrupt("Unsupported cluster size: 2^\(header.clusterBits)")
    }
    let cluster = try file.bytes(at: 0, count: Int(header.geometry.clusterSize))
    if !header.incompatibleFeatures.isSubset(of: .known) {
      let extensions = try? Self.extensions(of: header, in: cluster)
      try (extensions ?? Qcow2HeaderExtensions()).refuseUnknown(header.incompatibleFeatures)
    }
    try header.validate()
    var prologue = Qcow2Prologue(
      header: header, extensions: try Self.extensions(of: header, in: cluster), backing: nil)
    prologue.backing = try prologue.readBacking(from: cluster)
    return prologue
  }

  private static func extensions(of header: Qcow2Header, in cluster: [UInt8]) throws(EngineError)
    -> Qcow2HeaderExtensions
  {
    let start = Int(header.headerLength)
    let hasName =
      header.backingNameOffset >= UInt64(start) && header.backingNameOffset <= UInt64(cluster.count)
    let end = hasName ? Int(header.backingNameOffset) : cluster.count
    return try cluster.parsed { (span) throws(EngineError) in
      try Qcow2HeaderExtensions.parse(span, from: start, to: end)
    }
  }

  private func readBacking(from cluster: [UInt8]) throws(EngineError) -> BackingReference? {
    guard header.backingNameOffset != 0, header.backingNameLength > 0 else { return nil }
    let start = Int(header.backingNameOffset)
    guard start >= Int(header.headerLength) else { throw .corrupt("Invalid backing file offset") }
    let name = try cluster.parsed { (span) throws(EngineError) in
      try span.text(in: start..<start + Int(header.backingNameLength))
    }
    return BackingReference(name: name, format: extensions.text(Qcow2HeaderExtensions.Kind.backingFormat))
  }

  /// The first cluster's content as it is to stand in the file: header, extensions, name, zeros.
  func serialised() throws(EngineError) -> [UInt8] {
    var prologue = self
    var extensions = extensions
    extensions.set(
      Qcow2HeaderExtensions.Kind.backingFormat, backing?.format.map { Array($0.utf8) })
    prologue.extensions = extensions
    let tail = extensions.serialised()
    let name = Array((backing?.name ?? "").utf8)
    let nameOffset = Int(header.headerLength) + tail.count
    prologue.header.backingNameOffset = name.isEmpty ? 0 : UInt64(nameOffset)
    prologue.header.backingNameLength = UInt32(name.count)
    guard name.count <= Int(Qcow2Header.maximumBackingNameLength) else {
      throw .invalid("Backing file name too long")
    }
    let bytes = prologue.header.serialised() + tail + name
    guard bytes.count <= Int(header.geometry.clusterSize) else {
      throw EngineError(
        .noSpace, "The header, its extensions and the backing file's name need more than one cluster")
    }
    return bytes
  }
}
