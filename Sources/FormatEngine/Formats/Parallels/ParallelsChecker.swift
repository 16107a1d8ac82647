import Synchronization

/// Looks through the BAT for what must not be, and finds out which clusters are in use. The words are qemu-img's.
///
/// It reads the file's own BAT afresh, so it needs no lock and sees what is on disk.
struct ParallelsChecker {
  var header: ParallelsHeader
  let geometry: ParallelsGeometry
  let file: any ByteStore
  let repairing: RepairMode?
  let progress: Progress
  var report = CheckReport()
  var used: ParallelsUsedClusters
  /// Bytes of the file, in whole sectors.
  var fileEnd: UInt64
  /// Entries to be changed, by their numbers.
  var changes: [(index: UInt64, entry: UInt32)] = []
  /// Entries whose clusters an earlier entry, or more than one, has already.
  var duplicates: [(index: UInt64, hostOffset: UInt64)] = []
  /// Entries whose clusters lie before the data area, where they can be read, but at no place that it could begin with.
  var strays: [(index: UInt64, hostOffset: UInt64)] = []
  var isHeaderChanged = false

  /// Findings that are listed by words; more are only counted.
  private static let maximumFindings = 100_000

  init(
    _ header: ParallelsHeader, file: any ByteStore, progress: Progress, repairing: RepairMode? = nil
  ) throws(EngineError) {
    self.header = header
    self.file = file
    self.progress = progress
    self.repairing = repairing
    geometry = header.geometry
    fileEnd = try file.byteCount().aligned(upTo: 512)
    used = ParallelsUsedClusters(geometry, dataOffset: geometry.firstDataOffset)
  }

  private var isMendingErrors: Bool { repairing == .all }

  mutating func run() throws(EngineError) -> CheckReport {
    report.totalClusters = geometry.entryCount
    checkInUse()
    try checkDataOffset()
    try checkEntries()
    try useExtension()
    try checkEnd()
    try checkDuplicates()
    if repairing != nil { try writeChanges() }
    return report
  }

  private mutating func checkInUse() {
    guard header.isInUse else { return }
    error("image was not closed correctly")
    guard isMendingErrors else { return }
    header.inUse = 0
    isHeaderChanged = true
  }

  /// Where the data begin: by the header, but not after the first cluster in use.
  private mutating func checkDataOffset() throws(EngineError) {
    let stored = geometry.dataOffset(header, fileEnd: fileEnd)
    let known = header.dataSector == 0 ? nil : stored
    var start = stored ?? geometry.firstDataOffset
    if let lowest = try lowestCluster(inGridOf: known), known == nil || lowest < start {
      // All clusters lie a whole number of clusters apart, so they show where such a number begins.
      start = lowest - (lowest - geometry.firstDataOffset) / geometry.clusterSize * geometry.clusterSize
    }
    used = ParallelsUsedClusters(geometry, dataOffset: start)
    guard stored == nil else { return }
    error("data_off field has incorrect value")
    guard isMendingErrors else { return }
    header.dataSector = UInt32(truncatingIfNeeded: start / 512)
    isHeaderChanged = true
  }

  /// Host offset of the first cluster in use inside the file, behind the BAT. `start`: where one may begin, and others
  /// a whole number of clusters from it; nil where that is not known.
  private func lowestCluster(inGridOf start: UInt64?) throws(EngineError) -> UInt64? {
    var walk = try ParallelsEntryWalk(geometry, in: file)
    var lowest: UInt64?
    while let (_, entry) = try walk.next() {
      let host = geometry.hostOffset(of: entry)
      guard host >= geometry.firstDataOffset, host < fileEnd, host < lowest ?? .max else { continue }
      if let start, host >= start || (start - host) % geometry.clusterSize != 0 { continue }
      lowest = host
    }
    return lowest
  }

  private mutating func checkEntries() throws(EngineError) {
    var walk = try ParallelsEntryWalk(geometry, in: file)
    var previous: (index: UInt64, hostOffset: UInt64)?
    while let (index, entry) = try walk.next() {
      let host = geometry.hostOffset(of: entry)
      if isOutside(host) {
        error("cluster \(index) is outside image")
        if isMendingErrors {
          if try !noteStray(index, host) { changes.append((index, 0)) }
          continue
        }
        if host < used.dataOffset || host >= fileEnd { continue }
      } else if host + geometry.clusterSize > fileEnd {
        // What of it is there is data: when it is mended, the file gets what is missing.
        error("cluster \(index) is outside image")
      }
      report.allocatedClusters += 1
      if let previous, previous.index + 1 == index, previous.hostOffset + geometry.clusterSize != host {
        report.fragmentedClusters += 1
      }
      previous = (index, host)
      if try !used.use(used.clusters(host, geometry.clusterSize)) { duplicates.append((index, host)) }
      try progress.step(index + 1, of: geometry.entryCount)
    }
  }

  private func isOutside(_ host: UInt64) -> Bool { host < used.dataOffset || host >= fileEnd }

  /// A cluster behind the BAT, whose bytes a guest has read until now: it is moved. False where it is none.
  private mutating func noteStray(_ index: UInt64, _ host: UInt64) throws(EngineError) -> Bool {
    guard host >= geometry.firstDataOffset, host < fileEnd else { return false }
    strays.append((index, host))
    // What of it reaches into the data area is not written to before it was copied.
    let end = host + geometry.clusterSize
    if end > used.dataOffset { _ = try used.use(used.clusters(used.dataOffset, end - used.dataOffset)) }
    return true
  }

  /// What the format extension takes is in use, too.
  private mutating func useExtension() throws(EngineError) {
    if try ParallelsExtension.isDamaged(header, in: file) { try dropExtension() }
    for host in ParallelsExtension.clusters(of: header, in: file)
    where host >= used.dataOffset && host < fileEnd {
      _ = try used.use(used.clusters(host, geometry.clusterSize))
    }
  }

  /// As the first write does; one that says it is needed stays, and is told of.
  private mutating func dropExtension() throws(EngineError) {
    guard (try? ParallelsExtension.requireDroppable(header, from: file)) != nil else {
      report.corruptions += 1
      report.findings.append("ERROR format extension is damaged")
      return
    }
    error("format extension is damaged")
    guard isMendingErrors else { return }
    header.extensionSector = 0
    isHeaderChanged = true
  }

  private mutating func checkEnd() throws(EngineError) {
    report.imageEndOffset = used.end
    if used.end > fileEnd, isMendingErrors {
      try file.resize(to: used.end)
      fileEnd = used.end
    }
    // The file is not to end before where the header says that the data begin, though the clusters in use lie before that.
    let end = max(used.end, geometry.dataOffset(header, fileEnd: fileEnd) ?? 0)
    // A device has the size that it has.
    guard fileEnd > end, !file.isDevice else { return }
    let byteCount = fileEnd - end
    let count = byteCount.dividedRoundingUp(by: geometry.clusterSize)
    report.findings.append(
      "\(repairing == nil ? "ERROR" : "Repairing") space leaked at the end of the image \(byteCount)")
    guard repairing != nil else {
      report.leaks += count
      return
    }
    try file.resize(to: end)
    fileEnd = end
    report.leaksFixed += count
  }

  private mutating func checkDuplicates() throws(EngineError) {
    // Each gets a copy of a whole cluster; a small file must not become one of terabytes by that.
    let placeCount = (fileEnd - min(used.dataOffset, fileEnd)) / geometry.clusterSize
    guard !isMendingErrors || duplicates.count + strays.count <= max(placeCount, 16) else {
      throw .corrupt("More clusters share a place than the file has places: the BAT as a whole is lost")
    }
    for (index, host) in strays { try moveCluster(of: index, from: host) }
    for (index, host) in duplicates {
      error("duplicate offset in BAT entry \(index)")
      if isMendingErrors { try moveCluster(of: index, from: host) }
    }
    if isMendingErrors, !duplicates.isEmpty, header.dataSector == 0 {
      // The copies lie a whole number of clusters from here; without the number the next one would count from a cluster that is
      // perhaps at an odd place.
      header.dataSector = UInt32(truncatingIfNeeded: used.dataOffset / 512)
      isHeaderChanged = true
    }
    report.imageEndOffset = used.end
  }

  private mutating func moveCluster(of index: UInt64, from host: UInt64) throws(EngineError) {
    let cluster = try used.take(atMost: 1)
    let target = used.hostOffset(of: cluster.lowerBound)
    try copyCluster(from: host, to: target)
    changes.append((index, geometry.entry(for: target)))
  }

  /// Zeros take no room in the copy: a cluster may have 2 GiB, of which a small file holds next to nothing.
  private func copyCluster(from source: UInt64, to target: UInt64) throws(EngineError) {
    let buffer = AlignedBuffer(byteCount: Int(min(geometry.clusterSize, MiB)))
    var done: UInt64 = 0
    while done < geometry.clusterSize {
      let run = try file.run(at: source + done, limit: geometry.clusterSize - done)
      guard run.isData else {
        try file.writeZeros(at: target + done, count: run.length, freeing: true)
        done += run.length
        continue
      }
      let piece = unsafe buffer.prefix(Int(min(run.length, UInt64(buffer.byteCount))))
      unsafe try file.read(into: piece, at: source + done)
      if unsafe ZeroScan.isZero(UnsafeRawBufferPointer(piece)) {
        try file.writeZeros(at: target + done, count: UInt64(piece.count), freeing: true)
      } else {
        unsafe try file.write(UnsafeRawBufferPointer(piece), at: target + done)
      }
      done += UInt64(piece.count)
    }
  }

  /// Data first, then the entries that point to it, the mark that somebody was writing last.
  private mutating func writeChanges() throws(EngineError) {
    if !changes.isEmpty {
      try file.flush()
      for (index, entry) in changes {
        var bytes: [UInt8] = []
        bytes.append(littleEndian: entry)
        try file.write(bytes: bytes, at: ParallelsGeometry.batOffset + index * 4)
      }
    }
    try file.flush()
    guard isHeaderChanged else { return }
    try header.write(to: file)
    try file.flush()
  }

  /// An error that a repair of all mends.
  private mutating func error(_ words: @autoclosure () -> String) {
    if isMendingErrors { report.corruptionsFixed += 1 } else { report.corruptions += 1 }
    guard report.findings.count < Self.maximumFindings else { return }
    report.findings.append("\(isMendingErrors ? "Repairing" : "ERROR") \(words())")
  }
}

extension ParallelsLayer: Repairable {
  func check(progress: Progress) throws(EngineError) -> CheckReport {
    try state.withLock { (state) throws(EngineError) in
      // The marks that this very layer has set are no damage.
      if state.isInUse { try state.flush() }
      var checker = try ParallelsChecker(state.savedHeader, file: file, progress: progress)
      return try checker.run()
    }
  }

  func repair(_ mode: RepairMode, progress: Progress) throws(EngineError) -> CheckReport {
    try state.withLock { (state) throws(EngineError) in
      guard !state.isInUse else { throw .invalid("An image that is being written to cannot be repaired") }
      var checker = try ParallelsChecker(state.header, file: file, progress: progress, repairing: mode)
      let report = try checker.run()
      state = ParallelsState(checker.header, file: file)
      return report
    }
  }
}
