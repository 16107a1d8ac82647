import FormatEngine
import Synchronization
import TestSupport
import Testing

/// Small images of every kind, for damaging: 16 clusters of guest bytes, some of them written.
enum DamageBase: String, CaseIterable, Sendable {
  case plain, snapshot, compressed, version2, subclusters, oneBit, wide, smallClusters, dataFile

  var clusterSize: Int {
    switch self {
    case .subclusters: 16384
    case .smallClusters: 512
    default: 4096
    }
  }

  private var options: String {
    switch self {
    case .version2: ",compat=0.10"
    case .subclusters: ",extended_l2=on"
    case .oneBit: ",refcount_bits=1"
    case .wide: ",refcount_bits=64"
    case .dataFile: ",data_file=image.data"
    default: ""
    }
  }

  /// Made by the judge.
  func image() throws -> Qcow2Bytes {
    if let known = Self.made.withLock({ $0[self] }) { return Qcow2Bytes(bytes: known) }
    let bytes = try TemporaryFolder.with { folder in
      let path = folder.file("image")
      let size = clusterSize
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qcow2", "-o", "cluster_size=\(size)\(options)", path, "\(16 * size)",
        folder: folder.path)
      func write(_ cluster: Int, _ pattern: Int, _ flags: String = "") -> String {
        "write -q \(flags) -P \(pattern) \(cluster * size) \(size)"
      }
      try ReferenceTool.io(
        [write(0, 10), write(1, 11), write(2, 12), write(5, 15)], on: path, format: "qcow2",
        folder: folder.path)
      if self == .compressed {
        try ReferenceTool.io([write(6, 16, "-c"), write(7, 17, "-c")], on: path, format: "qcow2")
      }
      if self == .snapshot {
        try ReferenceTool.qemuImg("snapshot", "-c", "before", path)
        try ReferenceTool.io([write(0, 20), write(8, 28)], on: path, format: "qcow2")
      }
      return try Files.read(path)
    }
    Self.made.withLock { $0[self] = bytes }
    return Qcow2Bytes(bytes: bytes)
  }

  private static let made = Mutex<[DamageBase: [UInt8]]>([:])
}

/// One way to damage an image.
struct Damage: Sendable, CustomTestStringConvertible {
  enum Outcome: Sendable {
    /// After `check -r all` nothing is wrong any more.
    case mended
    /// It stays, is named and counted: what was there could not be told, and is not thrown away.
    case stays
  }

  var name: String
  /// Images on which it makes sense and is tried alone; mixtures are tried on all the others too.
  var bases: [DamageBase] = [.snapshot, .oneBit]
  var outcome = Outcome.mended
  /// Why the judge's check does not count the same; nil where it must.
  var judgeDiffers: String?
  var apply: @Sendable (inout Qcow2Bytes) -> Void

  var testDescription: String { name }
}

extension Qcow2Bytes {
  var clusterSize: Int { 1 << Int(number(at: 20, width: 4)) }
  var refcountBits: Int { number(at: 4, width: 4) == 2 ? 16 : 1 << Int(number(at: 96, width: 4)) }
  var refcountTableOffset: Int { Int(clamping: number(at: 48, width: 8)) }
  var refcountBlockOffset: Int { Int(clamping: number(at: refcountTableOffset, width: 8)) }
  var hasSubclusters: Bool { number(at: 4, width: 4) > 2 && number(at: 72, width: 8) & 16 != 0 }

  /// Where the active L2 entry of a guest cluster stands.
  func l2Entry(_ cluster: Int) -> Int {
    let width = hasSubclusters ? 16 : 8
    return l2Offset + cluster * width
  }

  mutating func change(_ offset: Int, _ body: (UInt64) -> UInt64) {
    // A mixture of damages may have sent an offset anywhere.
    guard offset >= 0, offset + 8 <= bytes.count else { return }
    put(body(number(at: offset, width: 8)), at: offset, width: 8)
  }

  /// Sets the count of a host cluster; what does not fit is cut off.
  mutating func setCount(_ cluster: Int, _ count: UInt64) {
    let bits = refcountBits
    let place = refcountBlockOffset + cluster * bits / 8
    guard place >= 0, place + max(bits / 8, 1) <= bytes.count else { return }
    guard bits < 8 else { return put(count, at: place, width: bits / 8) }
    let shift = UInt8(cluster * bits % 8)
    bytes[place] =
      bytes[place] & ~(UInt8((1 << bits) - 1) << shift) | UInt8(count & ((1 << bits) - 1)) << shift
  }

  /// Host cluster of a guest cluster.
  func hostCluster(_ guest: Int) -> Int {
    let place = l2Entry(guest)
    guard place >= 0, place + 8 <= bytes.count else { return 0 }
    return Int(number(at: place, width: 8) & 0x00ff_ffff_ffff_fe00) / clusterSize
  }

  mutating func grow(clusters: Int) {
    let end = (bytes.count + clusterSize - 1) / clusterSize * clusterSize
    bytes += [UInt8](repeating: 0, count: end - bytes.count + clusters * clusterSize)
  }
}

extension Damage {
  private static let flag: UInt64 = 1 << 63
  /// Counts of one bit can neither be too high nor count two references.
  private static let withoutNarrow: [DamageBase] = [.plain, .version2]

  /// Counts.
  static let counts: [Damage] = [
    Damage(name: "cluster leaked") { image in
      image.grow(clusters: 3)
      image.setCount(image.bytes.count / image.clusterSize - 2, 1)
    },
    Damage(name: "count too high", bases: withoutNarrow) { $0.setCount($0.hostCluster(1), 7) },
    Damage(name: "count of data 0") { $0.setCount($0.hostCluster(1), 0) },
    Damage(name: "count of the header 0") { $0.setCount(0, 0) },
    Damage(name: "count of the L1 table 0") { $0.setCount($0.l1Offset / $0.clusterSize, 0) },
    Damage(name: "count of an L2 table 0") { $0.setCount($0.l2Offset / $0.clusterSize, 0) },
    Damage(name: "count of the refcount table 0") { $0.setCount($0.refcountTableOffset / $0.clusterSize, 0) },
    Damage(name: "count of the refcount block 0") { $0.setCount($0.refcountBlockOffset / $0.clusterSize, 0) },
    Damage(name: "count of a shared cluster too low", bases: [.snapshot]) {
      $0.setCount($0.hostCluster(1), 1)
    },
    Damage(name: "all counts 0") { image in
      let block = image.refcountBlockOffset
      guard block > 0, block + image.clusterSize <= image.bytes.count else { return }
      for place in block..<block + image.clusterSize { image.bytes[place] = 0 }
    },
    Damage(name: "all counts at their most", bases: withoutNarrow) { image in
      let block = image.refcountBlockOffset
      guard block > 0, block + image.clusterSize <= image.bytes.count else { return }
      for place in block..<block + image.clusterSize { image.bytes[place] = 0xff }
    },
    Damage(name: "copied flag missing") { $0.change($0.l2Entry(0)) { $0 & ~flag } },
    Damage(name: "copied flag missing in L1") { $0.change($0.l1Offset) { $0 & ~flag } },
    Damage(name: "copied flag on a shared cluster", bases: [.snapshot]) {
      $0.change($0.l2Entry(1)) { $0 | flag }
    },
    Damage(name: "copied flag missing, data file", bases: [.dataFile]) {
      $0.change($0.l2Entry(1)) { $0 & ~flag }
    },
    Damage(name: "marked dirty", bases: [.plain, .snapshot]) { $0.change(72) { $0 | 1 } },
    Damage(name: "marked corrupt", bases: [.plain, .snapshot]) { $0.change(72) { $0 | 2 } },
  ]

  /// The refcount structure itself.
  static let structure: [Damage] = [
    Damage(name: "no refcount table") { image in
      image.put(0, at: 48, width: 8)
      image.put(0, at: 56, width: 4)
    },
    Damage(
      name: "refcount table unaligned", judgeDiffers: "it does not open the image"
    ) { image in image.change(48) { $0 + 8 } },
    Damage(name: "refcount table past the end") { $0.put(1 << 40, at: 48, width: 8) },
    Damage(name: "refcount table too large", judgeDiffers: "it does not open the image") {
      $0.put(1 << 20, at: 56, width: 4)
    },
    Damage(name: "refcount table on data") { image in
      image.put(UInt64(image.hostCluster(1) * image.clusterSize), at: 48, width: 8)
    },
    Damage(
      name: "refcount table on the header", judgeDiffers: "blocks past 2^63 are I/O errors for it"
    ) { $0.put(0, at: 48, width: 8) },
    Damage(
      name: "refcount table on the L1 table", judgeDiffers: "blocks past 2^63 are I/O errors for it"
    ) { $0.put(UInt64($0.l1Offset), at: 48, width: 8) },
    Damage(name: "refcount table reaches over the block") { $0.put(2, at: 56, width: 4) },
    Damage(name: "refcount block missing") { $0.put(0, at: $0.refcountTableOffset, width: 8) },
    Damage(name: "refcount block unaligned") { image in
      image.change(image.refcountTableOffset) { $0 + 512 }
    },
    Damage(name: "refcount block past the end") { $0.put(1 << 41, at: $0.refcountTableOffset, width: 8) },
    Damage(name: "second refcount block past the end") {
      $0.put(1 << 41, at: $0.refcountTableOffset + 8, width: 8)
    },
    Damage(name: "refcount block with reserved bits") { $0.change($0.refcountTableOffset) { $0 | 5 } },
    Damage(name: "refcount block twice") { image in
      image.put(UInt64(image.refcountBlockOffset), at: image.refcountTableOffset + 8, width: 8)
    },
    Damage(name: "refcount block on data") { image in
      image.put(UInt64(image.hostCluster(1) * image.clusterSize), at: image.refcountTableOffset, width: 8)
    },
    Damage(name: "refcount block on the L1 table") { image in
      image.put(UInt64(image.l1Offset), at: image.refcountTableOffset, width: 8)
    },
  ]

  /// L1 and L2 entries.
  static let entries: [Damage] = [
    Damage(name: "reserved bits in an L2 entry") { $0.change($0.l2Entry(1)) { $0 | 1 << 60 | 4 } },
    Damage(name: "reserved bits in an L1 entry") { $0.change($0.l1Offset) { $0 | 1 << 60 | 4 } },
    Damage(name: "data past the end", bases: withoutNarrow + [.subclusters]) {
      $0.put(flag | 1 << 40, at: $0.l2Entry(1), width: 8)
    },
    Damage(name: "preallocated zeros past the end", bases: [.plain, .snapshot]) {
      $0.put(flag | 1 << 40 | 1, at: $0.l2Entry(1), width: 8)
    },
    Damage(name: "preallocated zeros unaligned", bases: [.plain, .wide]) {
      $0.change($0.l2Entry(1)) { $0 + 512 | 1 }
    },
    Damage(name: "data unaligned", bases: [.plain, .wide], outcome: .stays) {
      $0.change($0.l2Entry(1)) { $0 + 512 }
    },
    Damage(name: "L2 table past the end") { $0.put(flag | 1 << 40, at: $0.l1Offset, width: 8) },
    Damage(
      name: "copied flag in L1 without a table", judgeDiffers: "it takes the header for the table"
    ) { $0.put(flag, at: $0.l1Offset, width: 8) },
    Damage(
      name: "L2 table unaligned", bases: [.plain, .wide], outcome: .stays,
      judgeDiffers: "it takes what stands there for a table"
    ) { $0.change($0.l1Offset) { $0 + 512 } },
    Damage(name: "packed bytes past the end", bases: [.compressed, .plain]) {
      $0.put(1 << 62 | 1 << 45, at: $0.l2Entry(1), width: 8)
    },
    Damage(name: "packed bytes reach far past the end", bases: [.compressed]) {
      $0.change($0.l2Entry(7)) { $0 | 0xf << 58 }
    },
    Damage(name: "copied flag on packed bytes", bases: [.compressed]) {
      $0.change($0.l2Entry(6)) { $0 | flag }
    },
    Damage(name: "packed bytes with a data file", bases: [.dataFile], outcome: .stays) {
      $0.put(1 << 62 | 5, at: $0.l2Entry(0), width: 8)
    },
    Damage(name: "subcluster stored and zero", bases: [.subclusters]) {
      $0.put(1 << 32 | 1, at: $0.l2Entry(1) + 8, width: 8)
    },
    Damage(name: "subclusters stored nowhere", bases: [.subclusters]) {
      $0.put(0, at: $0.l2Entry(1), width: 8)
    },
    Damage(name: "snapshot's L2 table past the end", bases: [.snapshot]) { image in
      image.put(flag | 1 << 40, at: Int(image.number(at: image.snapshotsOffset, width: 8)), width: 8)
    },
    Damage(name: "snapshot's L1 table unaligned", bases: [.snapshot], outcome: .stays) {
      $0.change($0.snapshotsOffset) { $0 + 512 }
    },
    Damage(name: "snapshot's L1 table too large", bases: [.snapshot], outcome: .stays) {
      $0.put(0x7fff_ffff, at: $0.snapshotsOffset + 8, width: 4)
    },
    Damage(name: "snapshot with too few fields", bases: [.snapshot]) {
      $0.put(8, at: $0.snapshotsOffset + 36, width: 4)
    },
    Damage(name: "one snapshot too many", bases: [.snapshot]) { $0.put(2, at: 60, width: 4) },
    Damage(
      name: "snapshot with too many fields", bases: [.snapshot], judgeDiffers: "both refuse to look further"
    ) { $0.put(2000, at: $0.snapshotsOffset + 36, width: 4) },
  ]

  /// One cluster for two.
  static let overlaps: [Damage] = [
    overlap("data on data") { $0.hostCluster(2) },
    overlap("data on its L2 table") { $0.l2Offset / $0.clusterSize },
    overlap("data on the L1 table") { $0.l1Offset / $0.clusterSize },
    overlap("data on the refcount table") { $0.refcountTableOffset / $0.clusterSize },
    overlap("data on the refcount block") { $0.refcountBlockOffset / $0.clusterSize },
    overlap("data on the snapshot table", [.snapshot]) { $0.snapshotsOffset / $0.clusterSize },
    overlap("data on a snapshot's L1 table", [.snapshot]) {
      Int($0.number(at: $0.snapshotsOffset, width: 8)) / $0.clusterSize
    },
    Damage(name: "L1 table as its own L2 table", bases: withoutNarrow) { image in
      image.put(flag | UInt64(image.l1Offset), at: image.l1Offset, width: 8)
    },
    Damage(name: "one L2 table for two", bases: withoutNarrow) { image in
      image.put(2, at: 36, width: 4)
      image.put(image.number(at: image.l1Offset, width: 8), at: image.l1Offset + 8, width: 8)
    },
    Damage(name: "one L1 table for the disk and its snapshot", bases: [.snapshot]) { image in
      image.put(UInt64(image.l1Offset), at: image.snapshotsOffset, width: 8)
    },
    // Its own bytes then are entries that refer to themselves.
    Damage(name: "a snapshot's L1 table on the snapshot table", bases: [.snapshot], outcome: .stays) {
      image in
      image.put(UInt64(image.snapshotsOffset), at: image.snapshotsOffset, width: 8)
    },
    Damage(name: "a snapshot's L1 table on the header", bases: [.snapshot]) { image in
      image.put(0, at: image.snapshotsOffset, width: 8)
    },
    Damage(name: "data as an L2 table", bases: [.plain, .wide]) { image in
      image.put(flag | UInt64(image.hostCluster(1) * image.clusterSize), at: image.l1Offset, width: 8)
    },
  ]

  private static func overlap(
    _ name: String, _ bases: [DamageBase] = withoutNarrow, _ cluster: @escaping @Sendable (Qcow2Bytes) -> Int
  ) -> Damage {
    Damage(name: name, bases: bases) { image in
      image.put(flag | UInt64(cluster(image) * image.clusterSize), at: image.l2Entry(1), width: 8)
    }
  }

  static let all = counts + structure + entries + overlaps
}
