import FormatEngine
import Glibc

/// A line of /proc/self/mountinfo (proc(5)).
struct MountEntry: Equatable {
  /// "major:minor" of the mounted file system.
  var device: String
  var mountPoint: String
  var type: String
  var source: String

  /// What `imgfs` mounts are shown as.
  static let imgfsType = "fuse.imgfs"

  init?(line: Substring) {
    let fields = line.split(separator: " " as Character, omittingEmptySubsequences: false).map { String($0) }
    guard let separator = fields.dropFirst(6).firstIndex(of: "-"), fields.count > separator + 2 else {
      return nil
    }
    device = fields[2]
    mountPoint = Self.unescaped(fields[4])
    type = fields[separator + 1]
    source = Self.unescaped(fields[separator + 2])
  }

  /// What is mounted at `path` now: the last line for it, as later mounts lie over earlier ones.
  static func find(at path: String) -> MountEntry? {
    guard let table = SystemFile.text("/proc/self/mountinfo") else { return nil }
    return table.split(separator: "\n").compactMap { MountEntry(line: $0) }.last { $0.mountPoint == path }
  }

  /// Spaces, tabs, newlines and backslashes stand as a backslash and three octal digits.
  private static func unescaped(_ text: String) -> String {
    var result: [UInt8] = []
    var rest = text.hostBytes[...]
    while let byte = rest.popFirst() {
      let digits = rest.prefix(3)
      if byte == UInt8(ascii: "\\"), digits.count == 3,
        let value = UInt8(String(decoding: digits, as: UTF8.self), radix: 8)
      {
        result.append(value)
        rest = rest.dropFirst(3)
      } else {
        result.append(byte)
      }
    }
    return String(hostBytes: result)
  }
}
