/// All that the first cluster says: header, extensions, the backing file's name.
struct Qcow2Prologue: Equatable, Sendable {
  var header: Qcow2Header
  var extensions: Qcow2HeaderExtensions
  /// The backing file's name as it stands in the image; empty where there is none.
  private(set) var backingName: [UInt8] = []

  init(header: Qcow2Header, extensions: Qcow2HeaderExtensions, backing: BackingReference?) {
    self.header = header
    self.extensions = extensions
    self.backing = backing
  }

  var backing: BackingReference? {
    get {
      guard !backingName.isEmpty else { return nil }
      return BackingReference(
        name: String(hostBytes: backingName),
        format: extensions.text(Qcow2HeaderExtensions.Kind.backingFormat))
    }
    set {
      backingName = (newValue?.name ?? "").hostBytes
      extensions.set(
        Qcow2HeaderExtensions.Kind.backingFormat, newValue?.format.map { $0.hostBytes })
    }
  }

  /// It was read for a check or a repair: the refcount table may be anywhere or nowhere, and there may be too many
  /// snapshots.
  private(set) var toleratesDamage = false
  /// What was wrong with fields that stand here as if they were empty.
  private(set) var damage: [String] = []

  /// Reads and checks it, but for unknown features: those are refused where the image is used.
  static func read(from file: any ByteStore, toleratingDamage: Bool = false) throws(EngineError)
    -> Qcow2Prologue
  {
    let head = try file.bytes(at: 0, count: Int(min(512, try file.byteCount())))
    var header = try head.parsed { (span) throws(EngineError) in try Qcow2Header.parse(span) }
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
    let damage = toleratingDamage ? header.removeDamagedTables() : []
    try header.validate(toleratingDamage: toleratingDamage)
    var prologue = Qcow2Prologue(header: header, extensions: Qcow2HeaderExtensions(), backing: nil)
    prologue.toleratesDamage = toleratingDamage
    prologue.damage = damage
    prologue.extensions = try Self.extensions(of: header, in: cluster)
    prologue.backingName = try prologue.readBackingName(from: cluster)
    if header.headerLength > Qcow2Header.version3Length + 1 {
      prologue.header.laterFields = Array(
        cluster[Int(Qcow2Header.version3Length) + 1..<Int(header.headerLength)])
    }
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

  private func readBackingName(from cluster: [UInt8]) throws(EngineError) -> [UInt8] {
    guard header.backingNameOffset != 0, header.backingNameLength > 0 else { return [] }
    let start = Int(header.backingNameOffset)
    guard start >= Int(header.headerLength) else { throw .corrupt("Invalid backing file offset") }
    return try cluster.parsed { (span) throws(EngineError) in
      try span.bytes(in: start..<start + Int(header.backingNameLength))
    }
  }

  /// The first cluster's content as it is to stand in the file: header, extensions, name.
  func serialised() throws(EngineError) -> [UInt8] {
    let tail = extensions.serialised()
    let nameOffset = Int(header.headerLength) + tail.count
    let bytes = try header(withNameAt: nameOffset).serialised() + tail + backingName
    guard bytes.count <= Int(header.geometry.clusterSize) else {
      throw EngineError(
        .noSpace, "The header, its extensions and the backing file's name need more than one cluster")
    }
    return bytes
  }

  /// The header with the backing file's name at an offset.
  func header(withNameAt offset: Int) throws(EngineError) -> Qcow2Header {
    guard backingName.count <= Int(Qcow2Header.maximumBackingNameLength) else {
      throw .invalid("Backing file name too long")
    }
    var header = header
    header.backingNameOffset = backingName.isEmpty ? 0 : UInt64(offset)
    header.backingNameLength = UInt32(backingName.count)
    return header
  }

  /// Says what the bits of the feature fields mean. Small clusters have no room for that; it is a courtesy.
  mutating func nameFeatures() {
    guard header.geometry.clusterSize >= 4096 else { return }
    extensions.set(Qcow2HeaderExtensions.Kind.featureNames, Qcow2HeaderExtensions.knownFeatureNames)
  }

  /// Whether there are dirty bitmaps that are valid (qcow2.txt, "Bitmaps extension").
  var hasBitmaps: Bool {
    guard header.autoclearFeatures.contains(.bitmaps) else { return false }
    return extensions[Qcow2HeaderExtensions.Kind.bitmaps]?.prefix(4).contains { $0 != 0 } ?? false
  }
}
