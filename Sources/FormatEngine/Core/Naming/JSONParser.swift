/// Reads JSON (RFC 8259), and strings in single quotation marks beside it, as QEMU takes them.
///
/// Text comes from command lines and from names that images record, so it is bounded: its length, and how
/// deep its values are nested.
public struct JSONParser {
  /// A name in an image has at most 1023 bytes, a word of a command line 128 KiB.
  static let maximumByteCount = 1 << 20
  /// Names nest a few levels: each driver takes one.
  static let maximumDepth = 128

  private let bytes: [UInt8]
  private var position = 0

  private init(_ bytes: [UInt8]) { self.bytes = bytes }

  public static func parse(_ text: String) throws(EngineError) -> JSONValue { try parse(Array(text.utf8)) }

  /// The one value that the bytes are the text of. The messages are QEMU's.
  public static func parse(_ bytes: [UInt8]) throws(EngineError) -> JSONValue {
    guard bytes.count <= maximumByteCount else { throw .invalid("JSON text is too long") }
    var parser = JSONParser(bytes)
    parser.skipSpace()
    guard !parser.isAtEnd else { throw .invalid("Expecting a JSON value") }
    let value = try parser.value(depth: 0)
    parser.skipSpace()
    guard parser.isAtEnd else { throw .invalid("Expecting at most one JSON value") }
    return value
  }

  private var isAtEnd: Bool { position == bytes.count }
  private var next: UInt8? { isAtEnd ? nil : bytes[position] }

  private func failure(_ message: String) -> EngineError { .invalid("JSON parse error, \(message)") }

  private mutating func skipSpace() {
    while let byte = next, byte == 0x20 || (0x09...0x0A).contains(byte) || byte == 0x0D { position += 1 }
  }

  /// Goes past the byte if it comes next.
  private mutating func skip(_ character: Unicode.Scalar) -> Bool {
    skipSpace()
    guard next == UInt8(ascii: character) else { return false }
    position += 1
    return true
  }

  private mutating func value(depth: Int) throws(EngineError) -> JSONValue {
    guard depth < Self.maximumDepth else { throw .invalid("JSON nesting depth limit exceeded") }
    skipSpace()
    guard let byte = next else { throw failure("premature EOI") }
    switch byte {
    case UInt8(ascii: "{"): return try record(depth: depth)
    case UInt8(ascii: "["): return try list(depth: depth)
    case UInt8(ascii: "\""), UInt8(ascii: "'"): return .text(try string())
    case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return .number(try number())
    case UInt8(ascii: "a")...UInt8(ascii: "z"): return try keyword()
    case UInt8(ascii: "}"), UInt8(ascii: "]"), UInt8(ascii: ","), UInt8(ascii: ":"):
      throw failure("expecting value")
    default: throw failure("stray '\(String(decoding: [byte], as: UTF8.self))'")
    }
  }

  private mutating func record(depth: Int) throws(EngineError) -> JSONValue {
    position += 1
    var members: [JSONMember] = []
    var keys: Set<String> = []
    if skip("}") { return .record([]) }
    while true {
      skipSpace()
      guard let quote = next else { throw failure("premature EOI") }
      guard quote == UInt8(ascii: "\"") || quote == UInt8(ascii: "'") else {
        throw failure(quote == UInt8(ascii: "}") ? "expecting value" : "key is not a string in object")
      }
      let key = try string()
      guard skip(":") else { throw failure(isAtEnd ? "premature EOI" : "missing : in object pair") }
      let member = try value(depth: depth + 1)
      guard keys.insert(key).inserted else { throw failure("duplicate key") }
      members.append(JSONMember(key, member))
      if skip("}") { return .record(members) }
      guard skip(",") else { throw failure(isAtEnd ? "premature EOI" : "expected separator in dict") }
    }
  }

  private mutating func list(depth: Int) throws(EngineError) -> JSONValue {
    position += 1
    var items: [JSONValue] = []
    if skip("]") { return .list([]) }
    while true {
      items.append(try value(depth: depth + 1))
      if skip("]") { return .list(items) }
      guard skip(",") else { throw failure(isAtEnd ? "premature EOI" : "expected separator in list") }
    }
  }

  private mutating func keyword() throws(EngineError) -> JSONValue {
    let start = position
    while let byte = next, (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) { position += 1 }
    switch String(decoding: bytes[start..<position], as: UTF8.self) {
    case "true": return .flag(true)
    case "false": return .flag(false)
    case "null": return .null
    case let word: throw failure("invalid keyword '\(word)'")
    }
  }

  /// [-] digits [. digits] [e [+-] digits], the first of several digits not 0.
  private mutating func number() throws(EngineError) -> String {
    let start = position
    if next == UInt8(ascii: "-") { position += 1 }
    let whole = position
    var isValid = skipDigits() > 0 && (bytes[whole] != UInt8(ascii: "0") || position == whole + 1)
    if next == UInt8(ascii: ".") {
      position += 1
      isValid = skipDigits() > 0 && isValid
    }
    if next == UInt8(ascii: "e") || next == UInt8(ascii: "E") {
      position += 1
      if next == UInt8(ascii: "+") || next == UInt8(ascii: "-") { position += 1 }
      isValid = skipDigits() > 0 && isValid
    }
    let text = String(decoding: bytes[start..<position], as: UTF8.self)
    guard isValid else { throw failure("stray '\(text)'") }
    return text
  }

  private mutating func skipDigits() -> Int {
    let start = position
    while let byte = next, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) { position += 1 }
    return position - start
  }

  // MARK: Strings

  private mutating func string() throws(EngineError) -> String {
    let quote = bytes[position]
    position += 1
    var content: [UInt8] = []
    while let byte = next, byte != quote {
      position += 1
      switch byte {
      case UInt8(ascii: "\\"): try escape(into: &content)
      case 0..<0x20: throw failure("stray control character in a string")
      default: content.append(byte)
      }
    }
    guard !isAtEnd else { throw failure("premature EOI") }
    position += 1
    guard let text = String(validating: content, as: UTF8.self) else {
      throw failure("invalid UTF-8 sequence in string")
    }
    return text
  }

  private mutating func escape(into content: inout [UInt8]) throws(EngineError) {
    guard let byte = next else { throw failure("premature EOI") }
    position += 1
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "'"), UInt8(ascii: "\\"), UInt8(ascii: "/"): content.append(byte)
    case UInt8(ascii: "b"): content.append(0x08)
    case UInt8(ascii: "f"): content.append(0x0C)
    case UInt8(ascii: "n"): content.append(0x0A)
    case UInt8(ascii: "r"): content.append(0x0D)
    case UInt8(ascii: "t"): content.append(0x09)
    case UInt8(ascii: "u"): content.append(contentsOf: String(characters: String(try scalar())).utf8)
    default: throw failure("invalid escape sequence")
    }
  }

  /// The character of one `\u` and four digits, or of two that are a surrogate pair. NUL ends names in C,
  /// so it is refused.
  private mutating func scalar() throws(EngineError) -> Character {
    let first = try codeUnit()
    var value = UInt32(first)
    if (0xD800..<0xDC00).contains(first), bytes[position...].starts(with: "\\u".utf8) {
      position += 2
      let second = try codeUnit()
      guard (0xDC00..<0xE000).contains(second) else { throw invalidCharacter(first) }
      value = 0x10000 + (UInt32(first) - 0xD800) << 10 + (UInt32(second) - 0xDC00)
    }
    guard value != 0, let scalar = Unicode.Scalar(value) else { throw invalidCharacter(first) }
    return Character(scalar)
  }

  private func invalidCharacter(_ unit: UInt16) -> EngineError {
    let digits = String(unit, radix: 16)
    return failure(
      "\\u\(String(repeating: "0", count: 4 - digits.count))\(digits) is not a valid Unicode character")
  }

  private mutating func codeUnit() throws(EngineError) -> UInt16 {
    guard bytes.count - position >= 4,
      bytes[position..<position + 4].allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }),
      let unit = UInt16(String(decoding: bytes[position..<position + 4], as: UTF8.self), radix: 16)
    else { throw failure("invalid hex escape in string") }
    position += 4
    return unit
  }
}
