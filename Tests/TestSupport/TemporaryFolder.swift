import Foundation

/// A folder for one test, removed when the test is over, also when it failed.
public struct TemporaryFolder: Sendable {
  public let path: String

  /// Where temporary folders are made: TMPDIR, else /tmp.
  public static let base: String = {
    let folder = ProcessInfo.processInfo.environment["TMPDIR"] ?? "/tmp"
    return folder.hasSuffix("/") && folder.count > 1 ? String(folder.dropLast()) : folder
  }()

  /// Runs `body` with a new, empty folder.
  public static func with<T>(_ body: (TemporaryFolder) throws -> T) throws -> T {
    guard Aftermath.isProvidedFor else { throw TestFailure("Nobody would clean up") }
    let folder = TemporaryFolder(
      path: "\(base)/imgfs-test-\(ProcessInfo.processInfo.processIdentifier)-\(UUID().uuidString.prefix(13))")
    try FileManager.default.createDirectory(atPath: folder.path, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder.path) }
    return try body(folder)
  }

  /// The path of a name in it.
  public func file(_ name: String) -> String { "\(path)/\(name)" }

  /// Writes a file in it and gives its path.
  @discardableResult
  public func write(_ bytes: [UInt8], to name: String) throws -> String {
    try Files.write(bytes, to: file(name))
    return file(name)
  }

  public func makeFolder(_ name: String) throws -> String {
    try FileManager.default.createDirectory(atPath: file(name), withIntermediateDirectories: true)
    return file(name)
  }

  /// A folder in it, to be used as one of its kind.
  public func makeInner(_ name: String) throws -> TemporaryFolder {
    TemporaryFolder(path: try makeFolder(name))
  }
}

/// Whole files, for tests.
public enum Files {
  public static func read(_ path: String) throws -> [UInt8] {
    // Not `FileManager.contents(atPath:)`: of a file in /proc, whose size is 0, it gives the first page only.
    guard let file = FileHandle(forReadingAtPath: path) else { throw TestFailure("Could not read '\(path)'") }
    defer { try? file.close() }
    var bytes: [UInt8] = []
    while let piece = try file.read(upToCount: 1 << 24), !piece.isEmpty { bytes += piece }
    return bytes
  }

  public static func write(_ bytes: [UInt8], to path: String) throws {
    guard FileManager.default.createFile(atPath: path, contents: Foundation.Data(bytes)) else {
      throw TestFailure("Could not write '\(path)'")
    }
  }

  public static func exists(_ path: String) -> Bool { FileManager.default.fileExists(atPath: path) }
}

extension TemporaryFolder {
  /// Names of the files in it.
  public func names() throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: path).sorted()
  }

  /// Files in it that this process has open.
  public func openFiles() -> [String] {
    let descriptors = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []
    return descriptors.compactMap { name in
      let target = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\(name)")
      return target.flatMap { $0.hasPrefix(path + "/") ? $0 : nil }
    }
  }

  /// The flags with which this process has the file open, nil where it has not.
  public func openFlags(of name: String) throws -> Int? {
    for number in try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd") {
      let target = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\(number)")
      guard target == file(name) else { continue }
      let facts = String(decoding: try Files.read("/proc/self/fdinfo/\(number)"), as: UTF8.self)
      for line in facts.split(separator: "\n") where line.hasPrefix("flags:") {
        return Int(line.dropFirst("flags:".count).filter { $0.isNumber }, radix: 8)
      }
    }
    return nil
  }
}

extension TemporaryFolder {
  /// A folder that is there already, and is somebody else's to remove.
  public init(at path: String) { self.path = path }
}
