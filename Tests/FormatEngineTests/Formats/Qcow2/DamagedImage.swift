import FormatEngine
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

  private static let made = Guarded<[DamageBase: [UInt8]]>([:])
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

  /// The count of a host cluster that the first block counts, where counts are whole bytes.
  func count(ofCluster cluster: Int) -> UInt64 {
    number(at: refcountBlockOffset + cluster * refcountBits / 8, width: refcountBits / 8)
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
