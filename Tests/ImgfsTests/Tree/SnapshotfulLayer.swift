import FormatEngine
import Synchronization

/// A layer in memory with snapshots by any names: each byte of the disk, and of each snapshot, is the
/// number of its place in the list, the disk itself being 255.
final class SnapshotfulLayer: SnapshotKeeping {
  let virtualSize: UInt64
  let clusterSize: UInt64 = 4096
  let backing: BackingReference? = nil
  let storesHoles = false
  private let memory: MemoryStore
  private let names: [String]
  private let failure: EngineError?
  private let dates: [SnapshotDate]
  /// What was asked of it and of its snapshots.
  let uses: Uses

  final class Uses: Sendable {
    fileprivate let openings = Atomic<Int>(0)
    fileprivate let extents = Atomic<Int>(0)

    var openingCount: Int { openings.load(ordering: .relaxed) }
    var extentCount: Int { extents.load(ordering: .relaxed) }
  }

  init(
    _ names: [String], value: UInt8 = 255, byteCount: Int = 8192, failure: EngineError? = nil,
    dates: [SnapshotDate] = [], uses: Uses = Uses()
  ) {
    self.names = names
    self.failure = failure
    self.dates = dates
    self.uses = uses
    memory = MemoryStore([UInt8](repeating: value, count: byteCount))
    virtualSize = UInt64(byteCount)
  }

  func store(_ index: UInt16) -> any ByteStore { memory }

  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    uses.extents.add(1, ordering: .relaxed)
    if let failure { throw failure }
    return Extent(.stored, length: limit, hostOffset: offset)
  }

  func readCompressed(_ extent: Extent, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    throw .corrupt("Nothing is compressed")
  }

  func snapshots() throws(EngineError) -> [SnapshotRecord] {
    if let failure { throw failure }
    return names.enumerated().map { index, name in
      let date =
        dates.isEmpty ? SnapshotDate(seconds: Int64(1000 + index), nanoseconds: 7) : dates[index]
      return SnapshotRecord(
        id: String(index), name: name, dateSeconds: date.seconds, dateNanoseconds: date.nanoseconds,
        vmClock: 0, vmStateSize: 0, virtualSize: UInt64(4096 + 512 * (index % 8)))
    }
  }

  func openSnapshot(_ record: SnapshotRecord) throws(EngineError) -> any ImageLayer {
    uses.openings.add(1, ordering: .relaxed)
    return SnapshotfulLayer(
      [], value: UInt8(truncatingIfNeeded: Int(record.id) ?? 0), byteCount: Int(record.virtualSize),
      uses: uses)
  }

  /// As the only layer of a chain.
  func chain(path: String = "/images/disk.img") -> ImageChain {
    ImageChain(members: [ChainMember(layer: self, file: memory, path: path, formatName: "test")])
  }
}
