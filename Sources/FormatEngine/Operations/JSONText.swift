/// JSON as qemu-img prints it: members in the order of QEMU's dictionaries, four spaces a level, ASCII only.
public enum JSONText {
  /// The value over several lines, without a line feed at its end.
  public static func pretty(_ value: InfoValue) -> String {
    var text = ""
    append(value, depth: 0, to: &text) { _ in }
    return text
  }

  /// The same in pieces: what an image says of itself may be long.
  public static func write<Failure: Error>(_ value: InfoValue, to sink: (String) throws(Failure) -> Void)
    throws(Failure)
  {
    var text = ""
    try append(value, depth: 0, to: &text) { (text) throws(Failure) in
      guard text.utf8.count >= 16384 else { return }
      try sink(text)
      text = ""
    }
    try sink(text)
  }

  /// The value on one line, as it stands in `json:` names.
  public static func compact(_ value: InfoValue) -> String {
    switch value {
    case .text(let words): quoted(words)
    case .integer(let number): String(number)
    case .flag(let flag): flag ? "true" : "false"
    case .list(let items): "[" + items.map(compact).joined(separator: ", ") + "]"
    case .record(let fields):
      "{" + ordered(fields).map { "\(quoted($0.key)): \(compact($0.value))" }.joined(separator: ", ") + "}"
    }
  }

  /// The text between quotation marks. What is not ASCII becomes \u and four digits for each UTF-16 unit; JSON has no
  /// bytes that are no characters.
  public static func quoted(_ text: String) -> String {
    // Most are as they are.
    if text.utf8.allSatisfy({ 0x20..<0x7F ~= $0 && $0 != 0x22 && $0 != 0x5C }) { return "\"\(text)\"" }
    var result = "\""
    let characters = text.utf8.contains(0xF4) ? Self.characters(of: text) : text
    for unit in characters.utf16 {
      switch unit {
      case 0x22: result += "\\\""
      case 0x5C: result += "\\\\"
      case 0x08: result += "\\b"
      case 0x0C: result += "\\f"
      case 0x0A: result += "\\n"
      case 0x0D: result += "\\r"
      case 0x09: result += "\\t"
      case 0x20..<0x7F: result.unicodeScalars.append(Unicode.Scalar(UInt8(unit)))
      default:
        let digits = String(unit, radix: 16, uppercase: true)
        result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      }
    }
    return result + "\""
  }

  private static func characters(of text: String) -> String {
    String(String.UnicodeScalarView(text.unicodeScalars.map { $0.hostByte == nil ? $0 : "\u{FFFD}" }))
  }

  /// The fields in the order in which QEMU's dictionaries are walked: by hash bucket, in a bucket the
  /// last one put in comes first.
  public static func ordered(_ fields: [InfoField]) -> [InfoField] {
    fields.enumerated().sorted { a, b in
      let (first, second) = (bucket(of: a.element.key), bucket(of: b.element.key))
      return first == second ? a.offset > b.offset : first < second
    }.map(\.element)
  }

  private static func bucket(of key: String) -> UInt32 {
    var value = 0x238F_13AF &* UInt32(truncatingIfNeeded: key.utf8.count)
    for (index, byte) in key.utf8.enumerated() { value = value &+ (UInt32(byte) &<< UInt32(index * 5 % 24)) }
    return (1_103_515_243 &* value &+ 12345) % 512
  }

  /// `passing` is asked after each item of a list whether to take what is there until now.
  private static func append<Failure: Error>(
    _ value: InfoValue, depth: Int, to text: inout String, passing: (inout String) throws(Failure) -> Void
  ) throws(Failure) {
    switch value {
    case .text(let words): text += quoted(words)
    case .integer(let number): text += String(number)
    case .flag(let flag): text += flag ? "true" : "false"
    case .list(let items):
      try appendBlock("[", items.lazy.map { (nil, $0) }, "]", depth, to: &text, passing: passing)
    case .record(let fields):
      try appendBlock(
        "{", ordered(fields).lazy.map { ($0.key, $0.value) }, "}", depth, to: &text, passing: passing)
    }
  }

  private static func appendBlock<Failure: Error>(
    _ opening: String, _ items: some Collection<(key: String?, value: InfoValue)>, _ closing: String,
    _ depth: Int, to text: inout String, passing: (inout String) throws(Failure) -> Void
  ) throws(Failure) {
    text += opening + "\n"
    let margin = String(repeating: "    ", count: depth)
    for (index, item) in items.enumerated() {
      text += margin + "    "
      if let key = item.key { text += quoted(key) + ": " }
      try append(item.value, depth: depth + 1, to: &text, passing: passing)
      text += index + 1 < items.count ? ",\n" : "\n"
      try passing(&text)
    }
    text += margin + closing
  }
}
