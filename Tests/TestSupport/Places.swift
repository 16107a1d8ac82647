import Foundation

/// Programs that this package builds.
public enum BuiltProduct: String, Sendable {
  case qemuImg = "qemu-img"
  case imgfs
  /// What is preloaded to stand between a program and its system calls (`HostCalls`).
  case hostCalls = "libHostCalls.so"

  /// Its path: products stand beside the test bundle.
  public var path: String {
    get throws {
      let bundle = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
      let path = URL(fileURLWithPath: bundle).deletingLastPathComponent().appendingPathComponent(rawValue)
        .path
      guard Files.exists(path) else { throw TestFailure("'\(path)' is not built") }
      return path
    }
  }

  /// Runs it to its end, whatever its exit status.
  public func run(
    _ arguments: [String], environment: [String: String] = [:], folder: String? = nil, timeout: Double = 60
  ) throws -> ProcessResult {
    try TestProcess.run([try path] + arguments, environment: environment, folder: folder, timeout: timeout)
  }
}

/// Images that other programs made, kept outside of the project: tests that need them are skipped where
/// they are not there.
public enum Samples {
  /// `shared/samples` beside the project's folder, or beside one of those that hold it.
  public static let folder: String? = {
    var place = URL(fileURLWithPath: #filePath)
    while place.path != "/" {
      place.deleteLastPathComponent()
      let candidate = place.appendingPathComponent("shared/samples").path
      if Files.exists(candidate + "/README.md") { return candidate }
    }
    return nil
  }()

  public static var areHere: Bool { folder != nil }

  /// Unpacks `name`.bz2 into a folder and gives the image's path.
  public static func unpack(_ name: String, into target: TemporaryFolder) throws -> String {
    guard let folder else { throw TestFailure("The samples are not here") }
    let result = try TestProcess.run(["/usr/bin/bzip2", "-dc", "\(folder)/\(name).bz2"]).expecting(0)
    return try target.write(result.stdout, to: name)
  }

  /// What samples/README.md expects of an image: virtual size, blocks with data, digest.
  public struct Expectation: Sendable, CustomStringConvertible {
    public var name: String
    public var format: String
    public var virtualSize: UInt64
    public var digest: RawDigest
    public var description: String { name }
  }

  /// The rows of the samples' table whose format begins with one of `formats`.
  public static func expectations(_ formats: Set<String>) -> [Expectation] {
    guard let folder, let text = try? String(contentsOfFile: folder + "/README.md", encoding: .utf8) else {
      return []
    }
    var result: [Expectation] = []
    for line in text.split(separator: "\n") where line.hasPrefix("|") {
      let cells = line.split(separator: "|", omittingEmptySubsequences: false)
        .map { $0.trimmingCharacters(in: .whitespaces) }
      guard cells.count >= 7, let size = UInt64(cells[4]), let blocks = Int(cells[5]) else { continue }
      guard let format = cells[3].split(whereSeparator: { " ,".contains($0) }).first.map(String.init) else {
        continue
      }
      if formats.contains(format) {
        let digest = RawDigest(blockCount: blocks, sha256: cells[6])
        for name in cells[1].split(separator: ",").map({ $0.trimmingCharacters(in: .whitespaces) }) {
          result.append(Expectation(name: name, format: format, virtualSize: size, digest: digest))
        }
      }
    }
    return result
  }
}
