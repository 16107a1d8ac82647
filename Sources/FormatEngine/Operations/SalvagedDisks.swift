/// Disks of which some parts cannot be read: those parts are zeros, and are reported.
final class SalvagedDisks: Sendable {
  private let disks: ConcatenatedDisks
  private let report: @Sendable (String) -> Void
  /// Where the block status is known to be unreadable: it is asked for several times, and told once.
  private let reported = Guarded<Set<UInt64>>([])

  /// `report` gets one sentence for each sector.
  init(_ disks: ConcatenatedDisks, report: @escaping @Sendable (String) -> Void) {
    self.disks = disks
    self.report = report
  }

  private static let sectorByteCount: UInt64 = 512

  /// Asks for the status of everything once, and tells where it cannot be read, as qemu-img does before it
  /// begins to copy.
  func survey() throws(EngineError) {
    var position: UInt64 = 0
    while position < disks.byteCount {
      position += try extent(at: position, limit: disks.byteCount - position).located.extent.length
    }
    reported.withLock { $0.removeAll() }
  }

  /// As `ConcatenatedDisks.extent`; a sector whose status cannot be read counts as data.
  func extent(at position: UInt64, limit: UInt64) throws(EngineError) -> ConcatenatedDisks.Found {
    var limit = limit
    while true {
      let failure: EngineError
      do throws(EngineError) { return try disks.extent(at: position, limit: limit) } catch { failure = error }
      // A file that ends inside of a sector makes extents that do, too.
      let sectorEnd = (position + 1).aligned(upTo: Self.sectorByteCount)
      guard position + limit <= sectorEnd else {
        limit = max((position + limit / 2).aligned(downTo: Self.sectorByteCount), sectorEnd) - position
        continue
      }
      if reported.withLock({ $0.insert(position).inserted }) {
        tell("error while reading block status at offset \(position)", failure)
      }
      return disks.unknown(at: position, limit: limit)
    }
  }

  /// Fills `buffer` with what can be read from `offset` on, which is `position` of all disks together.
  func read(
    _ disk: ImageChain, at offset: UInt64, position: UInt64, into buffer: UnsafeMutableRawBufferPointer
  ) {
    do throws(EngineError) {
      unsafe try disk.read(into: buffer, at: offset)
    } catch {
      let sectorEnd = (offset + 1).aligned(upTo: Self.sectorByteCount)
      let middle = max((offset + UInt64(buffer.count) / 2).aligned(downTo: Self.sectorByteCount), sectorEnd)
      let half = Int(middle - offset)
      guard half < buffer.count else {
        tell("error while reading offset \(position)", error)
        unsafe buffer.initializeMemory(as: UInt8.self, repeating: 0)
        return
      }
      let (low, high) = unsafe (
        UnsafeMutableRawBufferPointer(rebasing: buffer[..<half]),
        UnsafeMutableRawBufferPointer(rebasing: buffer[half...])
      )
      unsafe read(disk, at: offset, position: position, into: low)
      unsafe read(disk, at: offset + UInt64(half), position: position + UInt64(half), into: high)
    }
  }

  private func tell(_ what: String, _ error: EngineError) {
    report("\(what): \(EngineError.systemErrorText(error.errno))")
  }
}
