/// How large a disk is: a footer says it twice, and programs differ in what they believe.
///
/// Virtual PC and Virtual Server go by the geometry, and so does QEMU for the images that it made so. All
/// others go by the current size, and so does everybody where the geometry is the largest there is.
enum VPCSizeRule: String {
  case currentSize = "current_size"
  case geometry = "chs"

  private static let creatorsByGeometry = ["vpc ", "vs  ", "qemu"].map { Array($0.utf8) }

  /// The option `force_size_calc`; nil where nothing is forced.
  init?(option text: String?) throws(EngineError) {
    guard let text, !text.isEmpty else { return nil }
    guard let rule = VPCSizeRule(rawValue: text) else {
      throw .invalid("Invalid size calculation mode: '\(text)'")
    }
    self = rule
  }

  /// Of a disk that this program made.
  init(creator: [UInt8]) {
    self = Self.creatorsByGeometry.contains(creator) ? .geometry : .currentSize
  }
}

extension VPCFooter {
  /// Guest bytes. `forced`: the rule to go by, whoever made the disk.
  func virtualSize(forced: VPCSizeRule?) throws(EngineError) -> UInt64 {
    let rule = forced ?? VPCSizeRule(creator: creator)
    let bySize = rule == .currentSize || geometry == .largest
    let sectorCount = bySize ? currentSize / 512 : geometry.sectorCount
    guard sectorCount <= Self.maximumSectorCount else {
      throw EngineError(.tooLarge, "File too large")
    }
    return sectorCount * 512
  }

  /// Records another size. Where the size goes by the geometry, and no geometry is exactly so large, the creator
  /// becomes one whose disks go by the recorded size.
  mutating func setVirtualSize(_ byteCount: UInt64) {
    currentSize = byteCount
    let sectorCount = byteCount / 512
    guard VPCSizeRule(creator: creator) == .geometry else {
      if geometry != .largest || creator != Self.exactCreator {
        geometry = VPCDiskGeometry(below: sectorCount)
      }
      return
    }
    geometry = VPCDiskGeometry(holding: sectorCount)
    if geometry != .largest && geometry.sectorCount != sectorCount {
      creator = Self.exactCreator
      geometry = .largest
    }
  }

  /// Who made a disk whose size is its geometry's, and one whose size is as recorded: names by which QEMU knows them.
  static let roundedCreator = Array("qemu".utf8)
  static let exactCreator = Array("qem2".utf8)
}
