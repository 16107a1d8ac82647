import FormatEngine
import Glibc

/// The process that serves a mount, as the root's extended attribute names it: its number, and when it
/// was started, so that another process with the same number is not taken for it.
struct ServingProcess: Equatable, Sendable, CustomStringConvertible {
  static let attributeName = "user.imgfs.process"

  let id: pid_t
  /// Clock ticks since the machine was started.
  let startTime: UInt64

  /// Nil where there is no such process.
  init?(id: pid_t) {
    guard let startTime = Self.startTime(of: id) else { return nil }
    self.id = id
    self.startTime = startTime
  }

  /// Out of an attribute's value.
  init?(_ text: String) {
    let parts = text.split(separator: " ")
    guard parts.count == 2, let id = pid_t(parts[0]), let startTime = UInt64(parts[1]), id > 0 else {
      return nil
    }
    self.id = id
    self.startTime = startTime
  }

  var description: String { "\(id) \(startTime)" }
  var isRunning: Bool { Self.startTime(of: id) == startTime }

  /// Field 22 of /proc/PID/stat (proc(5)). The command's name before it is in parentheses and may hold
  /// anything, so it is the last one that counts.
  private static func startTime(of id: pid_t) -> UInt64? {
    guard let text = SystemFile.text("/proc/\(id)/stat") else { return nil }
    guard let end = text.utf8.lastIndex(of: UInt8(ascii: ")")) else { return nil }
    let fields = text[text.utf8.index(after: end)...].split(separator: " ")
    return fields.count > 19 ? UInt64(fields[19]) : nil
  }
}

/// Files of /proc and /sys.
enum SystemFile {
  /// All of it, or nil where it cannot be read.
  static func text(_ path: String) -> String? {
    let descriptor = unsafe path.withHostBytes { unsafe open($0, O_RDONLY | O_CLOEXEC) }
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var content: [UInt8] = []
    let buffer = AlignedBuffer(byteCount: 65_536)
    while true {
      let count = unsafe read(descriptor, buffer.bytes.baseAddress, buffer.byteCount)
      if count < 0 && errno == EINTR { continue }
      guard count >= 0 else { return nil }
      if count == 0 { return String(hostBytes: content) }
      unsafe content += buffer.prefix(count)
    }
  }
}
