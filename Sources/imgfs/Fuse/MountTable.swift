import FormatEngine
import Glibc

/// A line of /proc/self/mountinfo (proc(5)).
struct MountEntry: Equatable {
  /// Which mount it is: no other that there is has the same number.
  var id: String
  /// "major:minor" of the mounted file system.
  var device: String
  var mountPoint: String
  var type: String
  var source: String
  var isReadOnly: Bool

  /// What `imgfs` mounts are shown as.
  static let imgfsType = "fuse.imgfs"

  init?(line: Substring) {
    // By bytes: a name may begin with what combines with the space before it.
    let fields = Self.split(line, by: UInt8(ascii: " "))
    guard let separator = fields.dropFirst(6).firstIndex(of: "-"), fields.count > separator + 2 else {
      return nil
    }
    id = fields[0]
    device = fields[2]
    mountPoint = Self.unescaped(fields[4])
    type = fields[separator + 1]
    source = Self.unescaped(fields[separator + 2])
    // Of this mount, and of the file system.
    isReadOnly = [5, separator + 3].contains { index in
      fields.indices.contains(index) && Self.split(fields[index], by: UInt8(ascii: ",")).contains("ro")
    }
  }

  private static func split(_ text: some StringProtocol, by separator: UInt8) -> [String] {
    text.utf8.split(separator: separator, omittingEmptySubsequences: false).map {
      String(decoding: $0, as: UTF8.self)
    }
  }

  /// Names are bytes: texts that Swift takes for equal may be two folders.
  func isMounted(at path: String) -> Bool { mountPoint.utf8.elementsEqual(path.utf8) }

  /// What is mounted at `path` now: the last line for it, as later mounts lie over earlier ones.
  static func find(at path: String) -> MountEntry? { all().last { $0.isMounted(at: path) } }

  /// All that this process sees, later mounts after those that they lie over.
  static func all() -> [MountEntry] {
    let table = SystemFile.text("/proc/self/mountinfo") ?? ""
    return split(table, by: UInt8(ascii: "\n")).compactMap { MountEntry(line: $0[...]) }
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
