import FormatEngine

/// `info` for people.
enum InfoText {
  /// Prints line by line: a list may be long. `path`: the roles that lead from the image to this file, with slashes.
  static func write(_ info: ImageInfo, depth: Int = 0, path: String = "", to sink: (String) -> Void) {
    let margin = String(repeating: "    ", count: depth)
    func line(_ text: String) { sink(margin + text + "\n") }
    for text in head(info) + backing(info) { line(text) }
    if !info.snapshots.isEmpty { writeSnapshotList(info.snapshots, line) }
    if let fields = info.formatSpecific, !fields.isEmpty {
      line("Format specific information:")
      writeFields(fields, depth: 1, line)
    }
    for child in info.children {
      let childPath = "\(path)/\(child.role)"
      sink("\(margin)Child node '\(childPath)':\n")
      write(child.info, depth: depth + 1, path: childPath, to: sink)
    }
  }

  private static func head(_ info: ImageInfo) -> [String] {
    var lines = [
      "\(info.isProtocol ? "filename" : "image"): \(info.filename)",
      "\(info.isProtocol ? "protocol type" : "file format"): \(info.format)",
      "\(info.isProtocol ? "file length" : "virtual size"): \(NumberText.size(info.virtualSize))"
        + " (\(info.virtualSize) bytes)",
      "disk size: \(info.actualSize.map(NumberText.size) ?? "unavailable")",
    ]
    if info.isEncrypted { lines.append("encrypted: yes") }
    if info.clusterSize > 0 { lines.append("cluster_size: \(info.clusterSize)") }
    if info.isDirty == true { lines.append("cleanly shut down: no") }
    return lines
  }

  private static func backing(_ info: ImageInfo) -> [String] {
    guard let backing = info.backing else { return [] }
    let place =
      switch info.backingPath {
      case nil: " (cannot determine actual path)"
      case backing.name?: ""
      case let path?: " (actual path: \(path))"
      }
    return ["backing file: \(backing.name)\(place)"]
      + (backing.format.map { ["backing file format: \($0)"] } ?? [])
  }

  /// Lines of `info` and of `snapshot -l`.
  static func writeSnapshotList(_ snapshots: [SnapshotRecord], _ line: (String) -> Void) {
    line("Snapshot list:")
    line(snapshotHead)
    for snapshot in snapshots { line(snapshotRow(snapshot)) }
  }

  private static let snapshotHead = row("ID", "TAG", "VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT")

  private static func snapshotRow(_ snapshot: SnapshotRecord) -> String {
    let milliseconds = snapshot.vmClock / 1_000_000
    let seconds = milliseconds / 1000
    let clock =
      "\(NumberText.zeroPadded(seconds / 3600, 4)):\(NumberText.zeroPadded(seconds / 60 % 60, 2)):"
      + "\(NumberText.zeroPadded(seconds % 60, 2)).\(NumberText.zeroPadded(milliseconds % 1000, 3))"
    return row(
      snapshot.id, snapshot.name, NumberText.size(snapshot.vmStateSize),
      NumberText.localTime(snapshot.dateSeconds), clock, snapshot.instructionCount.map { "\($0)" } ?? "--")
  }

  private static func row(
    _ id: String, _ tag: String, _ size: String, _ date: String, _ clock: String, _ count: String
  ) -> String {
    [
      NumberText.left(id, 7), NumberText.left(tag, 16), NumberText.right(size, 8), NumberText.right(date, 19),
      NumberText.right(clock, 15), NumberText.right(count, 10),
    ].joined(separator: " ")
  }

  private static func writeFields(_ fields: [InfoField], depth: Int, _ line: (String) -> Void) {
    for field in JSONText.ordered(fields) {
      write(field.value, label: String(field.key.map { $0 == "-" ? " " : $0 }), depth: depth, line)
    }
  }

  private static func write(_ value: InfoValue, label: String, depth: Int, _ line: (String) -> Void) {
    let margin = String(repeating: "    ", count: depth)
    switch value {
    case .text(let text): line("\(margin)\(label): \(text)")
    case .integer(let number): line("\(margin)\(label): \(number)")
    case .flag(let flag): line("\(margin)\(label): \(flag)")
    case .list(let items):
      line("\(margin)\(label):")
      for (index, item) in items.enumerated() {
        write(item, label: "[\(index)]", depth: depth + 1, line)
      }
    case .record(let fields):
      line("\(margin)\(label):")
      writeFields(fields, depth: depth + 1, line)
    }
  }
}
