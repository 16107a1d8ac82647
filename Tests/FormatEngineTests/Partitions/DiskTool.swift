import FormatEngine
import Foundation
import TestSupport

/// Linux's own programs for partitions and file systems, as judges and to make what is read.
enum DiskTool {
  /// Runs a program of /usr/sbin or /usr/bin, with the lines of `input` on its standard input.
  @discardableResult
  static func run(_ name: String, _ arguments: [String], input: String? = nil, in folder: TemporaryFolder)
    throws
    -> ProcessResult
  {
    guard let path = ["/usr/sbin/\(name)", "/usr/bin/\(name)"].first(where: Files.exists) else {
      throw TestFailure("\(name) is not installed: scripts/test has the list of packages")
    }
    let stdin = try input.map { try folder.write(Array($0.utf8), to: "input") }
    return try TestProcess.run(
      [path] + arguments, environment: ["LC_ALL": "C.UTF-8"], folder: folder.path, stdin: stdin ?? "/dev/null"
    ).expecting()
  }

  /// A file of zeros that takes no room.
  static func makeDisk(_ name: String, byteCount: UInt64, in folder: TemporaryFolder) throws -> String {
    let path = try folder.write([], to: name)
    try FileHandle(forWritingTo: URL(fileURLWithPath: path)).truncate(atOffset: byteCount)
    return path
  }

  /// A partition as the judges have it, in sectors. `uuid` and `type` are in lower case.
  struct Row: Equatable, CustomStringConvertible {
    var number: Int
    var start: UInt64
    var count: UInt64
    var type: String
    var uuid: String
    var name: String
    var isBootable: Bool

    var description: String {
      "\(number): \(start)+\(count) \(type) \(uuid) '\(name)'\(isBootable ? " *" : "")"
    }
  }

  /// What `sfdisk --json` prints of a disk, with its label and identifier.
  static func sfdiskTable(_ disk: String, in folder: TemporaryFolder) throws -> (
    label: String, id: String, rows: [Row]
  ) {
    let result = try run("sfdisk", ["--json", disk], in: folder)
    let json = try JSONSerialization.jsonObject(with: Foundation.Data(result.stdout)) as? [String: Any]
    guard let table = json?["partitiontable"] as? [String: Any], let label = table["label"] as? String,
      let id = table["id"] as? String
    else { throw TestFailure("\(result.command): \(result.stdoutText)") }
    let rows = (table["partitions"] as? [[String: Any]] ?? []).map { line in
      func number(_ key: String) -> UInt64 { (line[key] as? NSNumber)?.uint64Value ?? 0 }
      func text(_ key: String) -> String { line[key] as? String ?? "" }
      let digits = text("node").reversed().prefix { $0.isNumber }.reversed()
      let attributes = text("attrs").split(separator: " ")
      return Row(
        number: Int(String(digits)) ?? 0, start: number("start"), count: number("size"),
        type: label == "gpt" ? text("type").lowercased() : "0x" + text("type"),
        uuid: text("uuid").lowercased(),
        name: text("name"),
        isBootable: (line["bootable"] as? NSNumber)?.boolValue ?? attributes.contains("LegacyBIOSBootable"))
    }
    return (label, label == "gpt" ? id.lowercased() : String(id.dropFirst(2)), rows)
  }

  /// What `partx` prints of a disk, without types and flags; it can be told a sector size.
  static func partxRows(_ disk: String, sectorByteCount: Int, in folder: TemporaryFolder) throws -> [Row] {
    let columns = "NR,START,SECTORS,UUID,NAME"
    let result = try run(
      "partx", ["--pairs", "--sector-size", "\(sectorByteCount)", "--output", columns, disk], in: folder)
    return result.stdoutText.split(separator: "\n").map { line in
      var fields: [String: String] = [:]
      for field in line.split(separator: "\" ") {
        let parts = field.split(separator: "=\"", maxSplits: 1, omittingEmptySubsequences: false)
        guard let value = parts.last, parts.count == 2 else { continue }
        fields[String(parts[0])] = unescaped(value.hasSuffix("\"") ? value.dropLast() : value)
      }
      return Row(
        number: Int(fields["NR"] ?? "") ?? 0, start: UInt64(fields["START"] ?? "") ?? 0,
        count: UInt64(fields["SECTORS"] ?? "") ?? 0, type: "", uuid: fields["UUID"] ?? "",
        name: fields["NAME"] ?? "",
        isBootable: false)
    }
  }

  /// partx writes bytes beyond ASCII as \xNN.
  private static func unescaped(_ text: Substring) -> String {
    let parts = text.components(separatedBy: "\\x")
    let bytes = parts.dropFirst().reduce(Array(parts[0].utf8)) { bytes, part in
      bytes + [UInt8(part.prefix(2), radix: 16) ?? 0] + Array(part.dropFirst(2).utf8)
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// What `blkid` finds in a file, nil where it finds nothing.
  static func blkidIdentity(_ disk: String, in folder: TemporaryFolder) throws -> FileSystemIdentity? {
    func value(_ tag: String) throws -> String? {
      let result = try TestProcess.run(["/usr/sbin/blkid", "-p", "-o", "value", "-s", tag, disk])
      // 2: nothing is known of it.
      guard result.status == 0 || result.status == 2 else { return try result.expecting().stdoutText }
      return result.stdoutText.isEmpty ? nil : String(result.stdoutText.dropLast())
    }
    guard let type = try value("TYPE") else { return nil }
    return FileSystemIdentity(type: type, label: try value("LABEL"), uuid: try value("UUID"))
  }
}

extension PartitionTable {
  /// The partitions in the judges' form.
  var rows: [DiskTool.Row] {
    partitions.map { partition in
      DiskTool.Row(
        number: partition.number, start: partition.start / sectorByteCount,
        count: partition.byteCount / sectorByteCount, type: partition.type,
        uuid: partition.uuid ?? "", name: partition.name ?? "", isBootable: partition.isBootable)
    }
  }

  static func read(file path: String, sectorByteCount: UInt64? = nil) throws -> PartitionTable? {
    try read(DiskWindow(FileStore.open(path, access: .readOnly)), sectorByteCount: sectorByteCount)
  }
}
