/// Disks taken as one, each behind the other, or a part of that: what `convert` and `dd` read.
struct ConcatenatedDisks: Sendable {
  private let disks: [ImageChain]
  /// Where each disk ends.
  private let ends: [UInt64]
  /// What of all disks together is there.
  private let part: Range<UInt64>

  /// `part` nil: everything. It must lie inside the disks.
  init(_ disks: [ImageChain], part: Range<UInt64>? = nil) throws(EngineError) {
    self.disks = disks
    var ends: [UInt64] = []
    for disk in disks {
      ends.append(try (ends.last ?? 0).adding(disk.virtualSize, orCorrupt: "The size of all disks together"))
    }
    self.ends = ends
    self.part = part ?? 0..<(ends.last ?? 0)
  }

  /// Of all layers of all disks.
  var largestClusterSize: UInt64 { disks.flatMap(\.layers).map(\.clusterSize).max() ?? 0 }

  var byteCount: UInt64 { part.upperBound - part.lowerBound }

  /// An extent of one of the disks.
  struct Found {
    let disk: ImageChain
    /// In that disk.
    let offset: UInt64
    var located: LocatedExtent
  }

  /// What lies at `position`, which is inside, at most up to `limit` bytes and to the end of its disk.
  func extent(at position: UInt64, limit: UInt64) throws(EngineError) -> Found {
    let (disk, offset) = place(of: position)
    do throws(EngineError) {
      let located = try disk.extent(at: offset, limit: min(limit, disk.virtualSize - offset))
      return Found(disk: disk, offset: offset, located: located)
    } catch {
      throw error.whileTrying("error while reading block status at offset \(position)")
    }
  }

  /// What is taken for `position` where nobody knows what lies there: data.
  func unknown(at position: UInt64, limit: UInt64) -> Found {
    let (disk, offset) = place(of: position)
    let extent = Extent(.stored, length: min(limit, disk.virtualSize - offset))
    return Found(disk: disk, offset: offset, located: LocatedExtent(depth: 0, extent: extent))
  }

  private func place(of position: UInt64) -> (ImageChain, offset: UInt64) {
    let position = position + part.lowerBound
    let index = ends.firstIndex { position < $0 } ?? ends.count - 1
    return (disks[index], position - (ends[index] - disks[index].virtualSize))
  }
}
