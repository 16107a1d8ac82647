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

  /// What it has read and written until now, and the processor time it took: as long as this changes, it works.
  var activity: [String] {
    let counts = SystemFile.text("/proc/\(id)/io").map { [$0] } ?? []
    return counts + Self.fields(of: id).dropFirst(11).prefix(2).map(String.init)
  }

  private static func startTime(of id: pid_t) -> UInt64? {
    let fields = fields(of: id)
    return fields.count > 19 ? UInt64(fields[19]) : nil
  }

  /// /proc/PID/stat (proc(5)) from field 3 on. The command's name before it is in parentheses and may hold anything, so
  /// it is the last one that counts. Empty where there is no such process.
  private static func fields(of id: pid_t) -> [Substring] {
    guard let text = SystemFile.text("/proc/\(id)/stat") else { return [] }
    guard let end = text.utf8.lastIndex(of: UInt8(ascii: ")")) else { return [] }
    return text[text.utf8.index(after: end)...].split(separator: " ")
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
