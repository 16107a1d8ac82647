/// Cylinders, heads and sectors of a track, as a footer records them.
struct VPCDiskGeometry: Equatable {
  var cylinders: UInt16
  var heads: UInt8
  var sectorsPerTrack: UInt8

  var sectorCount: UInt64 { UInt64(cylinders) * UInt64(heads) * UInt64(sectorsPerTrack) }

  /// The largest one, which larger disks have, too: it says nothing of the size then.
  static let largest = VPCDiskGeometry(cylinders: 65535, heads: 16, sectorsPerTrack: 255)

  init(cylinders: UInt16, heads: UInt8, sectorsPerTrack: UInt8) {
    self.cylinders = cylinders
    self.heads = heads
    self.sectorsPerTrack = sectorsPerTrack
  }

  /// The geometry of a disk of so many sectors, rounded down (VHD 1.0, "Appendix: CHS Calculation").
  init(below sectorCount: UInt64) {
    let sectors = min(sectorCount, Self.largest.sectorCount)
    if sectors >= 65535 * 16 * 63 {
      self.init(tracks: sectors / 255, heads: 16, sectorsPerTrack: 255)
      return
    }
    var tracks = sectors / 17
    let heads = max(4, tracks.dividedRoundingUp(by: 1024))
    guard tracks >= heads * 1024 || heads > 16 else {
      self.init(tracks: tracks, heads: UInt8(heads), sectorsPerTrack: 17)
      return
    }
    tracks = sectors / 31
    if tracks < 16 * 1024 {
      self.init(tracks: tracks, heads: 16, sectorsPerTrack: 31)
    } else {
      self.init(tracks: sectors / 63, heads: 16, sectorsPerTrack: 63)
    }
  }

  private init(tracks: UInt64, heads: UInt8, sectorsPerTrack: UInt8) {
    // At most 65535: the cases above see to it.
    self.init(
      cylinders: UInt16(min(tracks / UInt64(heads), 65535)), heads: heads, sectorsPerTrack: sectorsPerTrack)
  }

  /// The smallest geometry that holds so many sectors; the largest where none does.
  init(holding sectorCount: UInt64) {
    var tried = sectorCount
    self.init(below: tried)
    // A cylinder has at most 4080 sectors, so this ends soon.
    while self.sectorCount < sectorCount, self != .largest {
      tried += 1
      self = VPCDiskGeometry(below: tried)
    }
  }
}
