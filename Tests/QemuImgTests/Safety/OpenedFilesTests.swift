import Foundation
import TestSupport
import Testing

/// All that a command opens while it works on an image that names files elsewhere, as strace sees it: besides the image itself and what the
/// command line says only what every program opens.
@Suite(.enabled(if: Files.exists("/usr/bin/strace"))) struct OpenedFilesTests {
  /// A command, and what its own words name besides the image.
  struct Command: Sendable {
    var words: [String]
    var names: [String] = []
  }

  static let commands = [
    Command(words: ["info", "in/image"]), Command(words: ["info", "--output=json", "-U", "in/image"]),
    Command(words: ["--allow-path", "in", "info", "--backing-chain", "in/image"], names: ["in"]),
    Command(words: ["--allow-path", "in", "map", "in/image"], names: ["in"]),
    Command(words: ["--allow-path", "in", "check", "in/image"], names: ["in"]),
    Command(words: ["--allow-path", "in", "measure", "-O", "qcow2", "in/image"], names: ["in"]),
    Command(
      words: ["--allow-path", "in", "convert", "-O", "raw", "in/image", "copy"], names: ["in", "copy"]),
    Command(words: ["--allow-path", "in", "resize", "in/image", "+1M"], names: ["in"]),
    Command(words: ["--allow-path", "in", "snapshot", "-c", "a", "in/image"], names: ["in"]),
  ]

  @Test(arguments: NamingImage.all) func onlyWhatTheCommandNamesIsOpened(_ image: NamingImage) throws {
    try image.with { folder in
      for command in Self.commands { try expectNothingForeign(command, image, in: folder) }
    }
  }

  private func expectNothingForeign(_ command: Command, _ image: NamingImage, in folder: TemporaryFolder)
    throws
  {
    let log = folder.file("log")
    let tracing = [
      "/usr/bin/strace", "-f", "-qq", "-y", "-e", "trace=open,openat,openat2,creat,execve,socket", "-o", log,
    ]
    _ = try TestProcess.run(tracing + [try BuiltProduct.qemuImg.path] + command.words, folder: folder.path)
    let text = String(decoding: try Files.read(log), as: UTF8.self)
    let calls = text.split(separator: "\n").map(String.init)
    #expect(calls.count { $0.contains("execve(") } == 1, "\(command.words)")
    #expect(!text.contains("socket("), "\(command.words)")
    // Whoever is allowed a folder has what lies in it opened.
    let inside = (["in/image"] + command.names).map { folder.file($0) }
    var opensImage = false
    for path in calls.compactMap(Self.openedPath) {
      opensImage = opensImage || path == inside[0]
      let isNamed = inside.contains { path == $0 || path.hasPrefix($0 + "/") }
      #expect(isNamed || Self.isOfEveryProgram(path), "\(command.words) opens \(path)")
    }
    #expect(opensImage, "\(command.words)")
  }

  /// Where the file lies that a call has opened, by the descriptor that it gave (`= 3</path>`); nil where it failed.
  private static func openedPath(_ call: String) -> String? {
    guard call.contains("open") || call.contains("creat"),
      let start = call.range(of: ") = ", options: .backwards)
    else { return nil }
    let result = call[start.upperBound...]
    guard let open = result.firstIndex(of: "<"), result.first != "-" else { return nil }
    return result[result.index(after: open)...].split(separator: ">").first.map(String.init)
  }

  /// Libraries, and what the C library and the Swift runtime ask the system.
  private static func isOfEveryProgram(_ path: String) -> Bool {
    [
      "/lib", "/usr/lib", "/etc/ld.so", "/etc/localtime", "/usr/share/zoneinfo", "/proc/", "/sys/",
      "/dev/null", "/dev/urandom",
    ]
    .contains { path.hasPrefix($0) } || path.contains("/swift/usr/lib/") || path.contains("/.build/")
  }
}
