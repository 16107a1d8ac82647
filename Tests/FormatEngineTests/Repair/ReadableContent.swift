import FormatEngine
import TestSupport

/// What can be read of an image, sector by sector: its disk, its snapshots, its bitmaps.
struct ReadableContent {
  /// The sectors of a disk. Those that cannot be read are zeros here.
  struct Disk: Equatable {
    var bytes: [UInt8]
    var unreadable: Set<Int> = []
    /// Sectors that read out of the image's own tables: what is there is nobody's.
    private var doubtful: Set<Int> = []

    /// More of a damaged header's disk is not looked at.
    static let maximumByteCount = 16 << 20
    private static let sector = 512
    private static let piece = 256 << 10

    init(_ chain: ImageChain, _ tables: [Range<Int>]) {
      bytes = [UInt8](repeating: 0, count: Int(min(chain.virtualSize, UInt64(Self.maximumByteCount))))
      for start in stride(from: 0, to: bytes.count, by: Self.piece) {
        take(chain, start..<min(start + Self.piece, bytes.count))
      }
      if !tables.isEmpty { findDoubtful(chain, tables) }
    }

    private mutating func findDoubtful(_ chain: ImageChain, _ tables: [Range<Int>]) {
      var position = 0
      while position < bytes.count {
        let limit = UInt64(bytes.count - position)
        guard let found = try? chain.extent(at: UInt64(position), limit: limit).extent else {
          position += Self.sector
          continue
        }
        let end = position + Int(found.length)
        if found.source == .stored || found.source == .compressed,
          let host = found.hostOffset.map({ Int(clamping: $0) }),
          tables.contains(where: { $0.overlaps(host..<host &+ (end - position)) })
        {
          doubtful.formUnion(position / Self.sector..<(end + Self.sector - 1) / Self.sector)
        }
        position = end
      }
    }

    private mutating func take(_ chain: ImageChain, _ range: Range<Int>) {
      if let read = try? chain.readBytes(at: UInt64(range.lowerBound), count: range.count) {
        bytes.overwrite(at: range.lowerBound, with: read)
        return
      }
      guard range.count > Self.sector else {
        unreadable.insert(range.lowerBound / Self.sector)
        return
      }
      let half = (range.count / 2 + Self.sector - 1) / Self.sector * Self.sector
      take(chain, range.lowerBound..<range.lowerBound + half)
      take(chain, range.lowerBound + half..<range.upperBound)
    }

    func canRead(_ range: Range<Int>) -> Bool {
      unreadable.isEmpty
        || !(range.lowerBound / Self.sector..<(range.upperBound + Self.sector - 1) / Self.sector).contains {
          unreadable.contains($0)
        }
    }

    /// The first sector that could be read here and reads otherwise in `other`.
    func firstLoss(in other: Disk) -> Int? {
      if bytes == other.bytes && unreadable == other.unreadable { return nil }
      for start in stride(from: 0, to: bytes.count, by: Self.sector) {
        let index = start / Self.sector
        guard !unreadable.contains(index), !doubtful.contains(index) else { continue }
        let count = min(Self.sector, bytes.count - start)
        guard !other.unreadable.contains(index),
          bytes.equals(other.bytes, from: start, to: start, count: count)
        else { return index }
      }
      return nil
    }
  }

  var disk: Disk?
  var snapshots: [String: Disk] = [:]
  var bitmaps: [String: [Range<UInt64>]] = [:]

  /// As anybody reads it; where it does not open like that, as a check opens it.
  init(_ image: SoundImage, _ bytes: [UInt8]) {
    let files = MemoryFiles(image, MemoryStore(bytes))
    guard
      let chain = (try? files.open(.readOnly)) ?? (try? files.open(.readOnly, isForInspection: true))
    else { return }
    disk = Disk(chain, image.tables)
    if let keeping = chain.top as? any SnapshotKeeping, let records = try? keeping.snapshots() {
      for (index, record) in records.prefix(16).enumerated() {
        guard let layer = try? keeping.openSnapshot(record) else { continue }
        let key = records.count { $0.id == record.id } == 1 ? record.id : "\(record.id), number \(index)"
        snapshots[key] = Disk(chain.replacing(layerAt: 0, with: layer), image.tables)
      }
    }
    guard let keeping = chain.top as? any BitmapKeeping, let records = try? keeping.bitmaps() else { return }
    for record in records.prefix(16) {
      var runs: [Range<UInt64>] = []
      do throws(EngineError) {
        try keeping.forEachDirtyRun(of: record.name) { (run) throws(EngineError) in
          if runs.count < 4096 { runs.append(run) }
        }
      } catch { continue }
      bitmaps[record.name] = runs
    }
  }

  /// What could be read here and reads otherwise in `other`.
  ///
  /// `mayLack`: bitmaps may be gone, as the report said.
  func firstLoss(in other: ReadableContent, mayLackBitmaps: Bool = false) -> String? {
    if let disk {
      guard let now = other.disk else { return "the disk" }
      if let sector = disk.firstLoss(in: now) { return "sector \(sector)" }
    }
    for (name, snapshot) in snapshots {
      guard let now = other.snapshots[name] else { return "snapshot \(name)" }
      if let sector = snapshot.firstLoss(in: now) { return "snapshot \(name), sector \(sector)" }
    }
    for (name, runs) in bitmaps {
      guard let now = other.bitmaps[name] else {
        if mayLackBitmaps { continue }
        return "bitmap \(name)"
      }
      if now != runs { return "bits of \(name)" }
    }
    return nil
  }
}
