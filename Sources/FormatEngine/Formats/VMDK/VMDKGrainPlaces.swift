/// Where the grains of an extent lie in its file, to see which lie over one another.
///
/// Nearly all of them lie a whole number of grains apart: those are a bit each. The others are listed.
struct VMDKGrainPlaces {
  private let grainBits: UInt64
  private let grainSize: UInt64
  /// A bit for each grain's room, counted from `start`.
  private var taken: [UInt64]
  /// Where such rooms begin, by the first grain that was seen.
  private var start: UInt64?
  /// Of grains at other places: host offsets and guest offsets.
  private var odd: [(host: UInt64, guest: UInt64)] = []
  /// Whether every grain was noted.
  private var isComplete = true
  /// First byte behind all of them.
  private(set) var end: UInt64 = 0

  /// 64 MiB of bits: 32 TiB at 64 KiB grains, more than entries can address.
  private static let maximumWords: UInt64 = 8 * MiB
  /// 16 MiB of them; more are not looked at.
  private static let maximumOdd = 1 << 20

  init(_ geometry: VMDKGrainGeometry, fileEnd: UInt64) {
    grainBits = geometry.grainBits
    grainSize = geometry.grainSize
    taken = Array(repeating: 0, count: Int(min((fileEnd >> grainBits) / 64 + 1, Self.maximumWords)))
  }

  /// False where another grain has that very place.
  mutating func insert(_ hostOffset: UInt64, guestOffset: UInt64) -> Bool {
    end = max(end, hostOffset + grainSize)
    let start = start ?? hostOffset & (grainSize - 1)
    self.start = start
    guard hostOffset & (grainSize - 1) == start else {
      if odd.count < Self.maximumOdd { odd.append((hostOffset, guestOffset)) } else { isComplete = false }
      return true
    }
    let piece = hostOffset >> grainBits
    guard piece / 64 < UInt64(taken.count) else {
      isComplete = false
      return true
    }
    defer { taken[Int(piece / 64)] |= 1 << (piece % 64) }
    return !isTaken(piece)
  }

  private func isTaken(_ piece: UInt64) -> Bool {
    piece / 64 < UInt64(taken.count) && taken[Int(piece / 64)] & 1 << (piece % 64) != 0
  }

  /// Guest offsets of the grains at odd places that lie over another one.
  func findOverlaps() -> [UInt64] {
    guard let start else { return [] }
    let sorted = odd.sorted { $0.host < $1.host }
    var result: [UInt64] = []
    for (index, grain) in sorted.enumerated() {
      // It reaches into the room that begins before it, and into the one behind that.
      let piece = grain.host >> grainBits
      let before = grain.host & (grainSize - 1) > start ? piece : piece == 0 ? nil : piece - 1
      let isOverGrid = before.map { isTaken($0) || isTaken($0 + 1) } ?? isTaken(0)
      let isOverOdd = index > 0 && grain.host - sorted[index - 1].host < grainSize
      if isOverGrid || isOverOdd { result.append(grain.guest) }
    }
    return result
  }
}

extension VMDKGrainPlaces {
  /// Whether no two grains lie over one another, as the primary tables in the file have it. False where that cannot be said.
  static func areApart(_ tables: VMDKGrainTables) throws(EngineError) -> Bool {
    let geometry = tables.geometry
    var places = VMDKGrainPlaces(geometry, fileEnd: try tables.file.byteCount())
    for index in 0..<geometry.directoryCount {
      guard let table = try tables.tableOffset(index, copy: 0) else { continue }
      let count = Int(geometry.entryCount(ofTable: index))
      guard let bytes = try? tables.file.bytes(at: table, count: 4 * count) else { return false }
      let areApart = try bytes.parsed { (span) throws(EngineError) in
        for number in 0..<count {
          let entry = VMDKGrainEntry(raw: try span.littleEndian(UInt32.self, at: 4 * number))
          let guest = index << geometry.coverageBits + UInt64(number) << geometry.grainBits
          guard !entry.isStored || places.insert(entry.hostOffset, guestOffset: guest) else { return false }
        }
        return true
      }
      guard areApart, places.isComplete else { return false }
    }
    return places.findOverlaps().isEmpty
  }
}
