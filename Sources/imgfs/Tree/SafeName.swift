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
    var nextSuffix: [[UInt8]: Int] = [:]
    return result.enumerated().map { index, settled in
      if let settled { return settled }
      let name = safe[index]
      if taken.insert(name).inserted { return name }
      var suffix = nextSuffix[name] ?? 2
      while true {
        let candidate = numbered(name, suffix)
        suffix += 1
        if taken.insert(candidate).inserted {
          nextSuffix[name] = suffix
          return candidate
        }
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

  /// `name~number`, with `name` cut where it would get too long.
  private static func numbered(_ name: [UInt8], _ number: Int) -> [UInt8] {
    let suffix = Array("~\(number)".utf8)
    var end = min(name.count, maximumByteCount - suffix.count)
    // Back to the start of a character: bytes 10xxxxxx continue one.
    while end > 0, end < name.count, name[end] & 0xC0 == 0x80 { end -= 1 }
    return name[..<end] + suffix
  }
}
