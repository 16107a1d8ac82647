/// A space-efficient sparse extent: small grains, placed by numbers of 64 bits whose highest four say what they are. Only
/// read, as by QEMU.
///
/// | entry of     | bits 60..63 | the rest                                                                      |
/// |--------------|-------------|-------------------------------------------------------------------------------|
/// | directory    | 0           | zeros: there is no table                                                      |
/// |              | 1           | the number of the table, in 32 bits; bits 32..59 are zeros                    |
/// | table        | 0           | the grain is not stored: what lies below is read                              |
/// |              | 1           | the guest let go of it: zeros                                                 |
/// |              | 2           | zeros                                                                         |
/// |              | 3           | the number of the grain: its bits 12..59 in 0..47, its bits 0..11 in 48..59   |
final class VMDKSESparseExtent: VMDKExtentMap {
  private let geometry: VMDKSESparseGeometry
  private let file: any ByteStore
  private let directory: EntryTable<UInt64>
  private let entries: TableEntries
  private var fileEnd: FileEnd

  init(_ geometry: VMDKSESparseGeometry, file: any ByteStore, cacheByteCount: UInt64) throws(EngineError) {
    self.geometry = geometry
    self.file = file
    directory = EntryTable(
      in: file, at: geometry.directoryOffset, count: geometry.tableCount, .littleEndian,
      cacheByteCount: cacheByteCount / 8, writeOrder: nil)
    let needed = geometry.tableCount * VMDKSESparseGeometry.tableByteCount
    entries = TableEntries(
      in: file, tableByteCount: VMDKSESparseGeometry.tableByteCount, .littleEndian,
      cacheByteCount: min(cacheByteCount, needed), writeOrder: nil)
    fileEnd = try FileEnd(of: file)
  }

  // MARK: Tables

  /// The number of the table for an index of the directory, nil where there is none.
  func table(at index: UInt64) throws(EngineError) -> UInt64? {
    try fileEnd.require(geometry.directoryOffset + index * 8, 8, "The grain directory")
    let entry = try directory.entry(at: index)
    guard entry != 0 else { return nil }
    let number = entry & 0xffff_ffff
    guard entry >> 32 == 0x1000_0000, number < geometry.tableIndices else {
      throw .corrupt("Entry 0x\(hex(entry)) of the grain directory is none of a table")
    }
    return number
  }

  /// Where a table is.
  private func place(ofTable number: UInt64) throws(EngineError) -> UInt64 {
    let size = VMDKSESparseGeometry.tableByteCount
    let place = geometry.tablesOffset + number * size
    try fileEnd.require(place, size, "Grain table \(number)")
    return place
  }

  private func grain(_ index: UInt64, inTableAt place: UInt64) throws(EngineError) -> Grain {
    try Grain(try entries.entry(at: index, inTableAt: place), geometry)
  }

  /// An entry of a grain table.
  private enum Grain: Equatable {
    case none
    case zeros
    /// Its host offset.
    case stored(UInt64)

    init(_ entry: UInt64, _ geometry: VMDKSESparseGeometry) throws(EngineError) {
      switch entry >> 60 {
      case 0 where entry == 0: self = .none
      case 1, 2: self = .zeros
      case 3:
        let number = (entry & 0xffff_ffff_ffff) << 12 | (entry >> 48) & 0xfff
        let (start, overflow) = number.multipliedReportingOverflow(by: VMDKSESparseGeometry.grainSize)
        guard !overflow, start <= maximumFileOffset else {
          throw .corrupt("Entry 0x\(hex(entry)) of a grain table is out of range")
        }
        self = .stored(geometry.grainsOffset + start)
      default: throw .corrupt("Entry 0x\(hex(entry)) of a grain table is of no kind that is known")
      }
    }
  }

  // MARK: Reading

  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    do throws(EngineError) {
      return try run(at: offset, end: offset + limit)
    } catch {
      var error = error
      error.offset = offset
      throw error
    }
  }

  private func run(at offset: UInt64, end: UInt64) throws(EngineError) -> Extent {
    let coverage = VMDKSESparseGeometry.tableCoverage
    guard let number = try table(at: offset / coverage) else {
      return Extent(.below, length: emptyRun(from: offset, to: end) - offset)
    }
    let size = VMDKSESparseGeometry.grainSize
    let tableEnd = min(end, (offset / coverage + 1) * coverage)
    var index = offset % coverage / size
    let place = try place(ofTable: number)
    let first = try grain(index, inTableAt: place)
    if case .stored(let host) = first { try fileEnd.require(host, 1, "Grain") }
    var position = offset.aligned(downTo: size) + size
    var expected = first
    while position < tableEnd {
      index += 1
      if case .stored(let host) = expected { expected = .stored(host + size) }
      guard let next = try? grain(index, inTableAt: place), next == expected else { break }
      if case .stored(let host) = next {
        guard (try? fileEnd.require(host, 1, "Grain")) != nil else { break }
      }
      position += size
    }
    let length = min(position, tableEnd) - offset
    return switch first {
    case .none: Extent(.below, length: length)
    case .zeros: Extent(.zeros, length: length)
    case .stored(let host): Extent(.stored, length: length, hostOffset: host + offset % size)
    }
  }

  /// The end of a run of tables that are not there.
  private func emptyRun(from start: UInt64, to end: UInt64) -> UInt64 {
    var position = start
    // Bounded, so that a look-up in a huge empty disk holds the lock for a moment only.
    for _ in 0..<4096 {
      guard position < end else { break }
      let index = position / VMDKSESparseGeometry.tableCoverage
      do throws(EngineError) {
        guard try table(at: index) == nil else { return position }
      } catch {
        // A damaged entry is an error for its own range only.
        return position
      }
      position = (index + 1) * VMDKSESparseGeometry.tableCoverage
    }
    return min(position, end)
  }

  // MARK: Writing

  static let readOnly = EngineError(.readOnly, "No write support for seSparse images available")

  func allocate(at offset: UInt64, limit: UInt64) throws(EngineError) -> Allocation { throw Self.readOnly }
  func link(_ allocation: Allocation) throws(EngineError) { throw Self.readOnly }
  func abandon(_ allocation: Allocation) {}

  func setZeros(at offset: UInt64, limit: UInt64, keepingRoom: Bool) throws(EngineError) -> UInt64 {
    throw Self.readOnly
  }

  func discard(at offset: UInt64, limit: UInt64) throws(EngineError) -> UInt64 { throw Self.readOnly }
  func flush() throws(EngineError) {}
}
