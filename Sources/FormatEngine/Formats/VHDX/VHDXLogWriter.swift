/// Writes changed pages to the log before they go to their places: the first rank of the layer's `WriteOrder`.
///
/// All pages that changed are one entry, so that a power cut leaves all or none of them. Entries follow each other
/// around the log. Each has everything that may not be in its place yet, and so names itself as the tail;
/// the one before it stays whole until the new one is on disk. Lives in its layer's lock.
final class VHDXLogWriter: OrderedTable {
  private let file: any ByteStore
  private let headers: VHDXHeaderWriter
  private let pages: VHDXPages
  /// Where the next entry goes, in the log.
  private var next: UInt64 = 0
  private var sequenceNumber: UInt64 = 1
  private let guid: VHDXGuid
  /// Bytes of an entry that is written and perhaps not on disk.
  private var pendingByteCount: UInt64 = 0

  /// Head and descriptors in one sector, and a sector for each page: two such entries fit into the smallest log.
  static let maximumPageCount = 126

  /// `guid`: of no entry that is still in the log.
  init(file: any ByteStore, headers: VHDXHeaderWriter, pages: VHDXPages, guid: VHDXGuid) {
    self.guid = guid
    self.file = file
    self.headers = headers
    self.pages = pages
  }

  var isDirty: Bool { pages.isDirty }

  private var log: Range<UInt64> { headers.header.logRange }

  func writeBack() throws(EngineError) {
    let offsets = pages.changedOffsets
    guard !log.isEmpty, offsets.count <= Self.maximumPageCount else {
      throw EngineError(.noSpace, "The VHDX log has no room for \(offsets.count) changed pages")
    }
    let fileByteCount = try file.byteCount()
    let sector = VHDXLogEntryHeader.sectorByteCount
    let head = VHDXLogEntryHeader(
      length: UInt32(sector * (offsets.count + 1)), tail: UInt32(next), sequenceNumber: sequenceNumber,
      descriptorCount: UInt32(offsets.count), logGuid: guid, flushedFileOffset: fileByteCount,
      lastFileOffset: fileByteCount)
    var (entry, data): ([UInt8], [UInt8]) = ([], [])
    data.reserveCapacity(offsets.count * sector)
    head.append(to: &entry)
    for hostOffset in offsets {
      let descriptor = try VHDXLogDataSector.append(
        pages.changedPage(at: hostOffset), hostOffset: hostOffset, sequenceNumber: sequenceNumber, to: &data)
      descriptor.append(to: &entry)
    }
    entry.pad(toMultipleOf: sector)
    entry += data
    VHDXChecksum.set(in: &entry)
    try write(entry)
    pendingByteCount = UInt64(entry.count)
  }

  /// At `next`, around the end of the log.
  private func write(_ entry: [UInt8]) throws(EngineError) {
    let room = UInt64(log.count) - next
    let first = Int(min(room, UInt64(entry.count)))
    try file.write(bytes: Array(entry[..<first]), at: log.lowerBound + next)
    if first < entry.count { try file.write(bytes: Array(entry[first...]), at: log.lowerBound) }
  }

  /// The entry is on disk: from now on the header says that there is a log, and the next entry goes elsewhere.
  func commit() throws(EngineError) {
    guard pendingByteCount > 0 else { return }
    if headers.header.logGuid != guid { try headers.update { [guid] in $0.logGuid = guid } }
    next = (next + pendingByteCount) % UInt64(log.count)
    sequenceNumber += 1
    pendingByteCount = 0
  }

  /// Everything is in its place, on disk: the log is empty.
  func close() throws(EngineError) {
    guard headers.header.hasLog else { return }
    try headers.update { $0.logGuid = .zero }
    next = 0
  }
}

/// The changed pages on their way from the log to their places: the second rank.
final class VHDXPlacement: OrderedTable {
  private let log: VHDXLogWriter
  private let pages: VHDXPages

  init(log: VHDXLogWriter, pages: VHDXPages) {
    self.log = log
    self.pages = pages
  }

  var isDirty: Bool { pages.isDirty }

  func writeBack() throws(EngineError) {
    try log.commit()
    try pages.writeBack()
  }
}
