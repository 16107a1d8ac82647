import Foundation

/// A command under the limits that OpenStack gives qemu-img - 1 GiB of addresses, 30 s of processor time - and what it
/// used of them.
public struct MeasuredRun: Sendable {
  public let result: ProcessResult
  /// The most memory that was resident at a time, in KiB.
  public let peakKibibytes: Int
  public let processorSeconds: Double
  /// Whether it was still at work when it was told to end.
  public var wasEnded: Bool { result.status == Self.endedStatus }

  public static let addressLimit = 1 << 30
  public static let processorLimit = 30
  /// What timeout(1) gives for a command that it ended.
  private static let endedStatus = 124

  /// What it prints is not kept. `endingAfter`: seconds after which it is told to end (SIGTERM).
  ///
  /// time(1) starts the command by fork(2) and execve(2), so that its figure is the command's own: that of a process that
  /// this one spawns would begin with what this one uses.
  public static func run(
    _ product: BuiltProduct, _ arguments: [String], in folder: TemporaryFolder, endingAfter: Double? = nil
  ) throws -> MeasuredRun {
    let report = folder.file("usage-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(atPath: report) }
    var words = [
      "/usr/bin/prlimit", "--as=\(addressLimit)", "--cpu=\(processorLimit)", "/usr/bin/time", "-o", report,
      "-f", "%M %U %S",
    ]
    if let endingAfter { words += ["/usr/bin/timeout", "--kill-after=20", "\(endingAfter)"] }
    words += [try product.path] + arguments
    let result = try TestProcess.run(
      ["/bin/sh", "-c", "exec \"$@\" > /dev/null", "sh"] + words, environment: ["LC_ALL": "C"],
      folder: folder.path, timeout: 120)
    let lines = String(decoding: try Files.read(report), as: UTF8.self).split(separator: "\n")
    let fields = lines.last.map { $0.split(separator: " ").compactMap { Double($0) } } ?? []
    guard fields.count == 3 else { throw TestFailure("\(result.command): \(lines) \(result.stderrText)") }
    return MeasuredRun(
      result: result, peakKibibytes: Int(fields[0]), processorSeconds: fields[1] + fields[2])
  }
}
