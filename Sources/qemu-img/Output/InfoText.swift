import FormatEngine

/// `info` for people.
enum InfoText {
  /// `path`: the roles that lead from the image to this file, with slashes.
  static func of(_ info: ImageInfo, depth: Int = 0, path: String = "") -> String {
    let margin = String(repeating: "    ", count: depth)
    var lines = head(info) + backing(info)
    if !info.snapshots.isEmpty {
      lines += snapshotList(info.snapshots)
    }
    if let fields = info.formatSpecific, !fields.isEmpty {
      lines.append("Format specific information:")
      appendFields(fields, depth: 1, to: &lines)
    }
    var text = lines.map { margin + $0 + "\n" }.joined()
    for child in info.children {
      let childPath = "\(path)/\(child.role)"
      text += "\(margin)Child node '\(childPath)':\n" + of(child.info, depth: depth + 1, path: childPath)
    }
    return text
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
  static func snapshotList(_ snapshots: [SnapshotRecord]) -> [String] {
    ["Snapshot list:", snapshotHead] + snapshots.map(snapshotRow)
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

  private static func appendFields(_ fields: [InfoField], depth: Int, to lines: inout [String]) {
    for field in JSONText.ordered(fields) {
      append(field.value, label: String(field.key.map { $0 == "-" ? " " : $0 }), depth: depth, to: &lines)
    }
  }

  private static func append(_ value: InfoValue, label: String, depth: Int, to lines: inout [String]) {
    let margin = String(repeating: "    ", count: depth)
    switch value {
    case .text(let text): lines.append("\(margin)\(label): \(text)")
    case .integer(let number): lines.append("\(margin)\(label): \(number)")
    case .flag(let flag): lines.append("\(margin)\(label): \(flag)")
    case .list(let items):
      lines.append("\(margin)\(label):")
      for (index, item) in items.enumerated() {
        append(item, label: "[\(index)]", depth: depth + 1, to: &lines)
      }
    case .record(let fields):
      lines.append("\(margin)\(label):")
      appendFields(fields, depth: depth + 1, to: &lines)
    }
  }
}
