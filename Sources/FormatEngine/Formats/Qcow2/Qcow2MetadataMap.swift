/// Where the metadata of an image stands, as it was when the first change of a session began.
///
/// Counts of a damaged image may say that its tables are free; this map knows better. Places that are handed out
/// later are not in it: their counts are our own.
struct Qcow2MetadataMap {
  enum Kind: UInt64 {
    case header, activeL1, activeL2, refcountTable, refcountBlock, snapshotTable, snapshotL1, other
    case bitmapDirectory, bitmapTable

    /// In qemu-img's words.
    var name: String {
      switch self {
      case .header: "main header"
      case .activeL1: "active L1 table"
      case .activeL2: "active L2 table"
      case .refcountTable: "refcount table"
      case .refcountBlock: "refcount block"
      case .snapshotTable: "snapshot table"
      case .snapshotL1: "inactive L1 table"
      case .other: "header extension"
      case .bitmapDirectory: "bitmap directory"
      case .bitmapTable: "bitmap table"
      }
    }
  }

  /// Single clusters, sorted: the cluster's index, and in the low bits its kind. One word each, because a
  /// hostile L1 table lists four million.
  private var tables: [UInt64] = []
  /// Tables of several clusters, by their first.
  private var regions: [(clusters: Range<UInt64>, kind: Kind)] = []
  /// Tables that have moved away since.
  private var gone: Set<UInt64> = []

  private static let kindBits: UInt64 = 4

  mutating func add(_ clusters: Range<UInt64>, _ kind: Kind) {
    if !clusters.isEmpty { regions.append((clusters, kind)) }
  }

  mutating func add(clusterAt hostOffset: UInt64, _ kind: Kind, _ geometry: Qcow2Geometry) {
    guard hostOffset != 0 else { return }
    tables.append((hostOffset >> geometry.clusterBits) << Self.kindBits | kind.rawValue)
  }

  /// Sorts what was added, and throws `corrupt` where two pieces of metadata share a cluster.
  mutating func finish(_ geometry: Qcow2Geometry) throws(EngineError) {
    tables.sort()
    regions.sort { $0.clusters.lowerBound < $1.clusters.lowerBound }
    for (first, second) in zip(tables, tables.dropFirst()) where Self.cluster(first) == Self.cluster(second) {
      throw Self.overlap(Self.cluster(first), Self.kind(first), Self.kind(second), geometry)
    }
    for (first, second) in zip(regions, regions.dropFirst()) where first.clusters.overlaps(second.clusters) {
      throw Self.overlap(second.clusters.lowerBound, first.kind, second.kind, geometry)
    }
    for region in regions {
      let index = firstTable(from: region.clusters.lowerBound)
      if index < tables.count, Self.cluster(tables[index]) < region.clusters.upperBound {
        let table = tables[index]
        throw Self.overlap(Self.cluster(table), Self.kind(table), region.kind, geometry)
      }
    }
  }

  /// The metadata that a run of clusters would overwrite.
  func kind(in clusters: Range<UInt64>) -> Kind? {
    var index = firstTable(from: clusters.lowerBound)
    while index < tables.count, Self.cluster(tables[index]) < clusters.upperBound {
      if !gone.contains(Self.cluster(tables[index])) { return Self.kind(tables[index]) }
      index += 1
    }
    // The regions do not overlap, so only the last that begins before the end can reach in.
    var (low, high) = (0, regions.count)
    while low < high {
      let middle = (low + high) / 2
      if regions[middle].clusters.lowerBound < clusters.upperBound { low = middle + 1 } else { high = middle }
    }
    guard low > 0, regions[low - 1].clusters.upperBound > clusters.lowerBound else { return nil }
    return regions[low - 1].kind
  }

  /// Throws `corrupt` where clusters that are to be written hold metadata.
  func requireNone(in clusters: Range<UInt64>, _ geometry: Qcow2Geometry) throws(EngineError) {
    guard let kind = kind(in: clusters) else { return }
    let offset = hex(clusters.lowerBound << geometry.clusterBits)
    throw .corrupt("Preventing invalid write at 0x\(offset): it overlaps with the \(kind.name)")
  }

  /// A table of one cluster has moved: its old place is free for anything.
  mutating func remove(_ cluster: UInt64) {
    let index = firstTable(from: cluster)
    if index < tables.count, Self.cluster(tables[index]) == cluster { gone.insert(cluster) }
  }

  /// A table of several clusters has moved.
  mutating func move(_ kind: Kind, to clusters: Range<UInt64>) {
    regions.removeAll { $0.kind == kind }
    regions.append((clusters, kind))
    regions.sort { $0.clusters.lowerBound < $1.clusters.lowerBound }
  }

  /// Index of the first single table at or behind a cluster.
  private func firstTable(from cluster: UInt64) -> Int {
    var (low, high) = (0, tables.count)
    while low < high {
      let middle = (low + high) / 2
      if Self.cluster(tables[middle]) < cluster { low = middle + 1 } else { high = middle }
    }
    return low
  }

  private static func cluster(_ word: UInt64) -> UInt64 { word >> kindBits }
  private static func kind(_ word: UInt64) -> Kind { Kind(rawValue: word & ((1 << kindBits) - 1)) ?? .other }

  private static func overlap(_ cluster: UInt64, _ a: Kind, _ b: Kind, _ geometry: Qcow2Geometry)
    -> EngineError
  {
    .corrupt(
      "Preventing invalid write on metadata: the \(a.name) and the \(b.name) overlap at "
        + "0x\(hex(cluster << geometry.clusterBits))")
  }
}
