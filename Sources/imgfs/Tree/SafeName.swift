import FormatEngine

/// Makes file names out of names that an image gives, which may hold anything.
///
/// A name that can be a file name stays as it is. Otherwise what cannot stand in one - slashes, control
/// characters, marks that change the direction of text, line separators - is written as the `%XX` of its
/// bytes, "." and ".." likewise, and an empty name becomes `unnamed`. Names longer than Linux
/// allows are cut, and names that are there already get `~2`, `~3` and so on.
enum SafeName {
  /// What Linux allows for one name, in bytes.
  static let maximumByteCount = 255

  /// A safe name for each of `names`, in their order, no two the same. A name that is safe as it is goes
  /// to the first that has it, whatever comes before it in the list.
  static func unique(_ names: [String]) -> [[UInt8]] {
    let safe = names.map { single($0) }
    var result = [[UInt8]?](repeating: nil, count: names.count)
    var taken: Set<[UInt8]> = []
    for (index, name) in safe.enumerated() where name == names[index].hostBytes {
      if taken.insert(name).inserted { result[index] = name }
    }
    var numbers = Numbers()
    return result.enumerated().map { index, settled in
      if let settled { return settled }
      let name = safe[index]
      if taken.insert(name).inserted { return name }
      while true {
        let candidate = numbers.next(for: name)
        if taken.insert(candidate).inserted { return candidate }
      }
    }
  }

  /// The numbers of names that are there already, each given once. They are counted by what is left of a name before them:
  /// thousands of long names may differ in the end alone, whose place the number takes.
  private struct Numbers {
    private struct Start: Hashable {
      var bytes: ArraySlice<UInt8>
      var digitCount: Int
    }

    private var next: [Start: Int] = [:]

    /// `name~number`, with `name` cut where it would get too long.
    mutating func next(for name: [UInt8]) -> [UInt8] {
      var (digitCount, first) = (1, 2)
      while true {
        let start = Start(bytes: SafeName.cut(name, toLeave: digitCount + 1), digitCount: digitCount)
        let number = next[start] ?? first
        let end = first == 2 ? 10 : first * 10
        if number < end {
          next[start] = number + 1
          return start.bytes + Array("~\(number)".utf8)
        }
        (digitCount, first) = (digitCount + 1, end)
      }
    }
  }

  /// A safe name for `name` alone.
  static func single(_ name: String) -> [UInt8] {
    switch name {
    case "": return Array("unnamed".utf8)
    case ".", "..": return name.utf8.flatMap(escape)
    default: break
    }
    // Most are plain, and an image may have 65536 of them.
    let bytes = Array(name.utf8)
    if bytes.count <= maximumByteCount, bytes.allSatisfy(isPlain) { return bytes }
    var result: [UInt8] = []
    for scalar in name.unicodeScalars {
      let bytes = String(scalar).hostBytes
      let piece = isSafe(scalar) ? bytes : bytes.flatMap(escape)
      // The whole character or none of it: half a character is no valid name.
      guard result.count + piece.count <= maximumByteCount else { break }
      result += piece
    }
    return result
  }

  private static func isPlain(_ byte: UInt8) -> Bool { 0x20..<0x7F ~= byte && byte != UInt8(ascii: "/") }

  private static func isSafe(_ scalar: Unicode.Scalar) -> Bool {
    if scalar == "/" { return false }
    switch scalar.properties.generalCategory {
    case .control, .format, .lineSeparator, .paragraphSeparator, .privateUse, .unassigned, .surrogate:
      return false
    default:
      return true
    }
  }

  private static func escape(_ byte: UInt8) -> [UInt8] {
    let digits = Array("0123456789ABCDEF".utf8)
    return [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
  }

  /// The start of `name` that leaves room for so many bytes more.
  private static func cut(_ name: [UInt8], toLeave count: Int) -> ArraySlice<UInt8> {
    var end = min(name.count, maximumByteCount - count)
    // Back to the start of a character: bytes 10xxxxxx continue one.
    while end > 0, end < name.count, name[end] & 0xC0 == 0x80 { end -= 1 }
    return name[..<end]
  }
}
