import Foundation
import TestSupport
import Testing

@testable import FormatEngine

/// Entries of grain directories that point past the end of the file, and directories that lie there.
@Suite struct VMDKDirectoryRepairTests {
  /// The fields of a header, in sectors of the file: where the directories are.
  private static let (redundantField, primaryField): (UInt64, UInt64) = (48, 56)

  private func number(at offset: UInt64, width: Int, of file: any ByteStore) throws -> UInt64 {
    try file.bytes(at: offset, count: width).reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }

  private func put(_ value: UInt64, at offset: UInt64, width: Int, to file: any ByteStore) throws {
    try file.write(bytes: (0..<width).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) }, at: offset)
  }

  private func directory(_ field: UInt64, of file: any ByteStore) throws -> UInt64 {
    try number(at: field, width: 8, of: file) * 512
  }

  private func check(_ path: String) throws -> CheckReport {
    let layer = try ImageOpener.open(path).top as? any Checkable
    return try #require(try layer?.check(progress: .none))
  }

  private func repair(_ path: String, _ mode: RepairMode) throws -> CheckReport {
    var options = OpenOptions(format: "vmdk", access: .readWrite)
    options.isForInspection = true
    let chain = try ImageOpener.open(path, options)
    let layer = try #require(chain.top as? any Repairable)
    let report = try layer.repair(mode, progress: .none)
    try chain.close()
    return report
  }

  private func image(_ size: Int, _ commands: [String], in folder: TemporaryFolder) throws -> (
    path: String, file: FileStore
  ) {
    let path = folder.file("disk.vmdk")
    try ReferenceTool.create(path, format: "vmdk", size: size)
    try ReferenceTool.io(commands, on: path, format: "vmdk")
    return (path, try FileStore.open(path, access: .readWrite))
  }

  /// More entries than are written at once, most of them empty.
  @Test(arguments: [RepairMode.leaks, .all])
  func redundantDirectoryPastTheEndIsMadeAgain(_ mode: RepairMode) throws {
    try TemporaryFolder.with { folder in
      let (path, file) = try image(64 << 30, ["write -P 1 0 64k"], in: folder)
      for field in [Self.redundantField, Self.primaryField] {
        let place = try directory(field, of: file)
        try file.writeZeros(at: place + 4, count: 2047 * 4, freeing: false)
      }
      let end = try file.byteCount().aligned(upTo: 65536)
      try put((end + (1 << 20)) / 512, at: Self.redundantField, width: 8, to: file)
      try file.flush()
      #expect(try check(path).leaks == 2048)
      let report = try repair(path, mode)
      #expect(report.leaks == 0 && report.leaksFixed == 2048 && report.corruptions == 0)
      let after = try check(path)
      #expect(after.leaks == 0 && after.corruptions == 0, "\(after.findings.prefix(3))")
      #expect(
        try ImageOpener.open(path).readBytes(at: 65_000, count: 1000).prefix(536)
          == .init(repeating: 1, count: 536))
    }
  }

  /// A table that is put to the end of the file would be the one that a damaged entry names.
  @Test func tableIsNotAddedWhereALostOneWouldLie() throws {
    try TemporaryFolder.with { folder in
      let (path, file) = try image(64 << 20, ["write -P 1 0 64k", "write -P 2 32M 64k"], in: folder)
      let end = try file.byteCount().aligned(upTo: 65536)
      // The redundant table 0 is lost, and the primary table 1 is said to lie where the next one would be put.
      try put(0, at: try directory(Self.redundantField, of: file), width: 4, to: file)
      try put(end / 512, at: try directory(Self.primaryField, of: file) + 4, width: 4, to: file)
      try file.flush()
      func bytes() throws -> [[UInt8]] {
        let chain = try ImageOpener.open(path)
        return [try chain.readBytes(at: 0, count: 65536), try chain.readBytes(at: 32 << 20, count: 65536)]
      }
      let content = [[UInt8](repeating: 1, count: 65536), [UInt8](repeating: 2, count: 65536)]
      #expect(try bytes() == content)
      let report = try repair(path, .leaks)
      #expect(report.corruptions == 1 && report.leaks == 1 && report.leaksFixed == 0)
      #expect(try bytes() == content)
      #expect(try repair(path, .all).corruptions == 0)
      #expect(try bytes() == content)
      let after = try check(path)
      #expect(after.leaks == 0 && after.corruptions == 0, "\(after.findings)")
    }
  }

  /// A table that lost its entries has a twin that still has them.
  @Test func lostEntriesStayInTheRedundantTable() throws {
    try TemporaryFolder.with { folder in
      let (path, file) = try image(64 << 20, ["write -P 1 0 64k"], in: folder)
      let place = try directory(Self.primaryField, of: file)
      let table = try number(at: place, width: 4, of: file) * 512
      try put(0, at: table, width: 4, to: file)
      try file.flush()
      let twin = try number(at: try directory(Self.redundantField, of: file), width: 4, of: file) * 512
      let entry = try number(at: twin, width: 4, of: file)
      #expect(entry != 0)
      let report = try repair(path, .leaks)
      #expect(report.leaks == 1 && report.leaksFixed == 0, "\(report.findings)")
      #expect(try number(at: twin, width: 4, of: file) == entry)
      #expect(try repair(path, .all).leaks == 0)
      #expect(try check(path).leaks == 0)
    }
  }
}
