import FormatEngine
import TestSupport

/// All that can be read of an image: its disk, its snapshots, its bitmaps.
struct ImageContents: Equatable {
  struct Snapshot: Equatable {
    var id: String
    var name: String
    var disk: [UInt8]

    /// Bytes are compared by the C library: tests are built without optimization.
    static func == (a: Snapshot, b: Snapshot) -> Bool {
      a.id == b.id && a.name == b.name && ModelDisk.firstDifference(a.disk, b.disk) == nil
    }
  }

  struct Bitmap: Equatable {
    var record: BitmapRecord
    var dirty: [Range<UInt64>]
  }

  var disk: [UInt8]
  /// What lies below, as the image names it.
  var backing: String?
  var snapshots: [Snapshot] = []
  var bitmaps: [Bitmap] = []

  static func == (a: ImageContents, b: ImageContents) -> Bool {
    a.backing == b.backing && a.snapshots == b.snapshots && a.bitmaps == b.bitmaps
      && ModelDisk.firstDifference(a.disk, b.disk) == nil
  }

  /// Reads an image with all that lies below it.
  init(_ image: OperationRow.Image, in folder: TemporaryFolder) throws {
    let chain = try ImageOpener.open(folder.file(image.file), image.options(.readOnly))
    disk = try chain.readAll()
    backing = chain.top.backing?.name
    if let layer = chain.top as? any SnapshotKeeping {
      snapshots = try layer.snapshots().map { record in
        let disk = try chain.replacing(layerAt: 0, with: try layer.openSnapshot(record)).readAll()
        return Snapshot(id: record.id, name: record.name, disk: disk)
      }
    }
    if let layer = chain.top as? any BitmapKeeping {
      bitmaps = try layer.bitmaps().map { record in
        var dirty: [Range<UInt64>] = []
        if !record.isInconsistent {
          try layer.forEachDirtyRun(of: record.name) { (run) throws(EngineError) in dirty.append(run) }
        }
        return Bitmap(record: record, dirty: dirty)
      }
    }
  }

  /// Whether each sector of the disk is that of one or of the other.
  func isBetween(_ old: ImageContents, _ new: ImageContents) -> Bool {
    guard disk.count == old.disk.count || disk.count == new.disk.count else { return false }
    for start in stride(from: 0, to: disk.count, by: 512) {
      let count = min(512, disk.count - start)
      guard
        disk.equalsOrZero(old.disk, start, count) || disk.equalsOrZero(new.disk, start, count)
      else { return false }
    }
    return true
  }

  /// For messages: what differs.
  func difference(from other: ImageContents) -> String {
    if backing != other.backing { return "backing \(backing ?? "-") and \(other.backing ?? "-")" }
    if disk.count != other.disk.count { return "\(disk.count) and \(other.disk.count) bytes" }
    if let place = ModelDisk.firstDifference(disk, other.disk) { return "the disk at \(place)" }
    if snapshots != other.snapshots {
      return "snapshots \(snapshots.map(\.name)) and \(other.snapshots.map(\.name)), or their bytes"
    }
    return bitmaps == other.bitmaps ? "nothing" : "bitmaps \(bitmaps) and \(other.bitmaps)"
  }
}

extension [UInt8] {
  /// Whether a piece is the same in another disk, which may end before.
  fileprivate func equalsOrZero(_ other: [UInt8], _ start: Int, _ count: Int) -> Bool {
    let known = Swift.max(0, Swift.min(count, other.count - start))
    return equals(other, from: start, to: Swift.min(start, other.count), count: known)
      && (known == count || self[start + known..<start + count].isZero)
  }
}

extension OperationRow.Image {
  func options(_ access: FileAccess, forInspection: Bool = false) -> OpenOptions {
    var options = OpenOptions(format: format, access: access)
    if let passphrase { options.use(passphrase: passphrase) }
    options.isForInspection = forInspection
    options.checkedRoles = [.extent]
    return options
  }
}

/// The metadata of an image that was left in the middle of a change.
extension OperationRow.Image {
  /// What is wrong with it, nil where it is sound or says itself that somebody must mend it first, which is done then.
  func damage(in folder: TemporaryFolder) throws -> String? {
    // A log of VHDX is replayed by who writes next; who only checks is told to do that first.
    if format == "vhdx" { try ImageOpener.open(folder.file(file), options(.readWrite)).close() }
    guard let report = try check(in: folder), report.corruptions + report.checkErrors > 0 else { return nil }
    guard try isMarked(in: folder) || report.findings.allSatisfy(Self.isHarmless) else {
      return "\(report.findings.prefix(3))"
    }
    try mend(in: folder)
    guard let mended = try check(in: folder), mended.corruptions + mended.checkErrors > 0 else { return nil }
    return "mended, then: \(mended.findings.prefix(3))"
  }

  /// Of VDI: the header may count more rooms than are in use.
  private static func isHarmless(_ finding: String) -> Bool {
    finding.hasPrefix("ERROR: allocated blocks mismatch")
  }

  private func check(in folder: TemporaryFolder) throws -> CheckReport? {
    let chain = try ImageOpener.open(folder.file(file), options(.readOnly, forInspection: true))
    return try (chain.top as? any Checkable)?.check(progress: .none)
  }

  private func mend(in folder: TemporaryFolder) throws {
    let chain = try ImageOpener.open(folder.file(file), options(.readWrite, forInspection: true))
    _ = try (chain.top as? any Repairable)?.repair(.all, progress: .none)
    try chain.close()
  }

  /// Whether it says that somebody is at work on it.
  func isMarked(in folder: TemporaryFolder) throws -> Bool {
    let bytes = try Files.read(folder.file(file))
    return switch format {
    case "qcow2": bytes.count > 79 && bytes[79] & 1 != 0
    case "qed": bytes.count > 16 && bytes[16] & 2 != 0
    case "parallels": bytes.count > 48 && bytes[44..<48].elementsEqual([0x59, 0x6e, 0x6f, 0x74])
    default: false
    }
  }

  /// Whether it is a VMDK link whose parent has the id that it announces, and not yet the one that it records: then
  /// the judge takes the parent for another one, until the commit is done once more.
  func announcesItsParent(in folder: TemporaryFolder) throws -> Bool {
    guard format == "vmdk" else { return false }
    func value(_ key: String, of file: String) throws -> String? {
      // Descriptors lie at the beginning.
      let text = String(decoding: try Files.read(folder.file(file)).prefix(20 * 512), as: UTF8.self)
      let line = text.split(whereSeparator: \.isNewline).last { $0.hasPrefix(key + "=") }
      return line.map { String($0.dropFirst(key.count + 1).prefix { $0 != "\0" }) }
    }
    guard let next = try value("# next parentCID", of: file), try value("parentCID", of: file) != next,
      let parent = try value("parentFileNameHint", of: file)
    else { return false }
    return try value("CID", of: parent.filter { $0 != "\"" }) == next
  }
}
