import Synchronization

/// QEMU has no check for VHD. What can be wrong is: the footers, the header's checksum, and blocks that lie where
/// they cannot. A file that goes on behind its last block, or has no footer there, is what a power cut leaves.
extension VPCLayer: Checkable {
  func check(progress: Progress) throws(EngineError) -> CheckReport {
    try state.withLock { (state) throws(EngineError) in
      var checker = VPCChecker(state)
      try checker.run(progress)
      return checker.report
    }
  }
}

/// Looks through one dynamic or differencing disk. Lives in its layer's lock.
struct VPCChecker {
  private let state: VPCState
  private(set) var report = CheckReport()
  /// What a repair can set right.
  private(set) var faults: Set<Fault> = []
  /// Blocks whose entries lead past the end of the file.
  private(set) var lostBlocks: [UInt64] = []
  /// First byte after metadata and blocks.
  private(set) var end: UInt64 = 0

  enum Fault {
    case head, tail, header, end
  }

  /// More findings are counted, and not told.
  private static let maximumFindingCount = 10_000
  /// With the smallest blocks in use, of 128 KiB, there are as many in a disk of 2 TiB. Each takes eight bytes here.
  private static let maximumBlockCount: UInt64 = 1 << 24

  init(_ state: VPCState) { self.state = state }

  mutating func run(_ progress: Progress) throws(EngineError) {
    guard state.geometry.blockCount <= Self.maximumBlockCount else {
      throw .unsupported("A VHD with \(state.geometry.blockCount) blocks is not checked")
    }
    try checkHeaders()
    let rooms = try checkEntries(progress)
    checkOverlaps(rooms)
    checkEnd()
  }

  private mutating func error(_ text: String) {
    report.corruptions += 1
    if report.findings.count < Self.maximumFindingCount { report.findings.append("ERROR " + text) }
  }

  // MARK: Headers

  private mutating func checkHeaders() throws(EngineError) {
    let copies = state.copies
    if !copies.isHeadSound {
      error("the copy of the footer at the start of the image is damaged")
      faults.insert(.head)
    }
    if copies.tailByteCount > 0 {
      if !copies.isTailSound {
        error("the footer at the end of the image is damaged")
        faults.insert(.tail)
      } else if copies.isHeadSound, copies.head.prefix(511) != copies.tail.prefix(511) {
        error("the footer at the end of the image differs from its copy at the start")
        faults.insert(.tail)
      }
    }
    let bytes = try state.file.bytes(at: state.footer.headerOffset, count: VPCDynamicHeader.byteCount)
    if !VPCDynamicHeader.hasRightChecksum(bytes) {
      error("the checksum of the dynamic disk header is wrong")
      faults.insert(.header)
    }
  }

  // MARK: Blocks

  /// Where the rooms of blocks begin that are in the file, in the order of the table.
  private mutating func checkEntries(_ progress: Progress) throws(EngineError) -> [UInt64] {
    var rooms: [UInt64] = []
    let geometry = state.geometry
    report.totalClusters = geometry.blockCount
    end = state.metadata.end
    for index in 0..<geometry.blockCount {
      if index.isAligned(to: 1024) { try progress.step(index, of: geometry.blockCount) }
      let entry = try state.table.entry(at: index)
      guard entry != VPCGeometry.unused else { continue }
      let room = VPCGeometry.roomOffset(entry)
      if room + geometry.bitmapSize >= state.knownEnd {
        error("block \(index) lies at \(room), past the end of the image")
        lostBlocks.append(index)
        continue
      }
      if let other = state.metadata.overlapping(room..<room + geometry.roomSize) {
        error("block \(index) at \(room) lies over \(other)")
        continue
      }
      if room + geometry.roomSize > state.knownEnd {
        error("block \(index) at \(room) reaches past the end of the image")
      }
      report.allocatedClusters += 1
      if let last = rooms.last, room != last + geometry.roomSize { report.fragmentedClusters += 1 }
      rooms.append(room)
      end = max(end, room + geometry.roomSize)
    }
    return rooms
  }

  private mutating func checkOverlaps(_ rooms: [UInt64]) {
    var last: UInt64?
    for room in rooms.sorted() {
      if let last, room < last + state.geometry.roomSize {
        error(room == last ? "two blocks lie at \(room)" : "the blocks at \(last) and \(room) overlap")
      }
      last = room
    }
  }

  // MARK: The end of the file

  private mutating func checkEnd() {
    end = end.aligned(upTo: VPCGeometry.sectorSize)
    report.imageEndOffset = end
    let isLong = state.contentEnd > end
    if state.copies.tailByteCount == 0 {
      report.leaks += 1
      report.findings.append("Leaked: the image does not end with its footer")
      faults.insert(.end)
    } else if isLong {
      report.leaks += (state.contentEnd - end).dividedRoundingUp(by: state.geometry.roomSize)
      report.findings.append("Leaked: \(state.contentEnd - end) bytes behind the last block")
      faults.insert(.end)
    }
  }
}
