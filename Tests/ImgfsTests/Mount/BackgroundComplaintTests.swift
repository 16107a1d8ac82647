import Foundation
import TestSupport
import Testing

/// What a mount in the background has to say when nobody reads its standard error any more.
@Suite(.enabled(if: MountedImage.canLoopMount), .serialized) struct BackgroundComplaintTests {
  /// A machine's log: a socket, and what comes to it.
  private final class Log {
    private let number: CInt

    init(_ path: String) throws {
      number = socket(AF_UNIX, CInt(SOCK_DGRAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue), 0)
      var address = sockaddr_un()
      address.sun_family = sa_family_t(AF_UNIX)
      let name = Array(path.utf8) + [0]
      guard name.count <= MemoryLayout.size(ofValue: address.sun_path) else {
        throw TestFailure("'\(path)' is too long for a socket")
      }
      unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: name) }
      let result = unsafe withUnsafePointer(to: &address) { address in
        unsafe address.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          unsafe bind(number, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
        }
      }
      guard result == 0 else { throw TestFailure("No socket at '\(path)': \(errno)") }
    }

    deinit { close(number) }

    /// What came since the last call, one line each.
    func lines() -> [String] {
      var lines: [String] = []
      var bytes = [UInt8](repeating: 0, count: 4096)
      while case let count = unsafe recv(number, &bytes, bytes.count, 0), count > 0 {
        lines.append(String(decoding: bytes.prefix(count), as: UTF8.self))
      }
      return lines
    }
  }

  /// In a mount namespace of its own, with a /dev whose log is the test's.
  private static let script = """
    set -e
    log=$1 dev=$2 imgfs=$3 images=$4 mnt=$5
    mount -t tmpfs none "$dev"
    for name in null zero urandom fuse; do : > "$dev/$name"; mount --bind /dev/$name "$dev/$name"; done
    ln -s "$log" "$dev/log"
    mount --rbind "$dev" /dev
    "$imgfs" -o rw,idle=0 "$images" "$mnt"
    for round in 1 2; do
      cat "$mnt/stream.vmdk/disk.raw" | head -c 1
      sleep 0.3
    done
    "$imgfs" --unmount "$mnt"
    """

  @Test func theyAreInTheMachinesLog() throws {
    try TemporaryFolder.with { folder in
      let images = try folder.makeInner("images")
      let raw = try folder.write([UInt8](repeating: 65, count: 1 << 16), to: "disk.raw")
      let stream = images.file("stream.vmdk")
      try ReferenceTool.qemuImg(
        "convert", "-q", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, stream)
      let log = try Log(folder.file("log"))
      let result = try TestProcess.run([
        "/usr/bin/unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", Self.script, "sh",
        folder.file("log"), try folder.makeFolder("dev"), try BuiltProduct.imgfs.path, images.path,
        try folder.makeFolder("mnt"),
      ]).expecting(0)
      #expect(result.stdoutText == "AA" && result.stderrText == "")
      // Once, though it was opened twice.
      let lines = log.lines()
      #expect(lines.count == 1)
      let line = try #require(lines.first)
      let head = try #require(try Regex(#"^<27>... .. ..:..:.. imgfs\[[0-9]+\]: "#).prefixMatch(in: line))
      let rest = line[head.range.upperBound...]
      let reason = "Could not open '\(stream)': Images of this kind are written once, from front to back"
      #expect(rest == "warning: '\(stream)' is mounted read-only: \(reason)")
    }
  }
}
