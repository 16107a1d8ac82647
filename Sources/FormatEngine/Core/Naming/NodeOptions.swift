/// What describes one node of a tree of drivers: options by dotted keys, such as `driver`, `file.filename`,
/// `backing.file.filename`. JSON records and lists become dotted keys, too: `{"a": [{"b": 1}]}` is `a.0.b`.
struct NodeOptions: Equatable, Sendable {
  enum Value: Equatable, Sendable {
    case text(String)
    /// The name of a file that an image names.
    case file(FilePlace)
    /// As it was written in JSON.
    case number(String)
    case flag(Bool)
    case null
    /// An empty record or list.
    case empty

    /// As text of a command line; nil where it stands for nothing.
    var text: String? {
      switch self {
      case .text(let text), .number(let text): text
      case .file(let place): place.path
      case .flag(let flag): flag ? "on" : "off"
      case .null, .empty: nil
      }
    }

    /// For names that are shown again.
    var info: InfoValue {
      switch self {
      case .text(let text): .text(text)
      case .file(let place): .text(place.path)
      case .number(let text): Int64(text).map(InfoValue.integer) ?? .text(text)
      case .flag(let flag): .flag(flag)
      case .null, .empty: .record([])
      }
    }
  }

  private(set) var values: [String: Value] = [:]

  init() {}

  /// Options that JSON text describes.
  init(json text: String) throws(EngineError) {
    let value: JSONValue
    do throws(EngineError) {
      value = try JSONParser.parse(text)
    } catch {
      throw error.whileTrying("Could not parse the JSON options")
    }
    guard case .record(let members) = value else { throw .invalid("Invalid JSON object given") }
    add(members, below: "")
  }

  /// A list `key=value,key=value` with commas in values doubled. The first item may be a name alone: that of
  /// a node, which is what `file` alone means. Later ones are switched on by their names, off by `no` before.
  init(list text: String) {
    for (index, item) in DoubledCommas.split(text).enumerated() {
      let parts = item.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      let key = String(parts[0])
      if parts.count > 1 {
        values[key] = .text(String(parts[1]))
      } else if index == 0 {
        if !text.isEmpty { values["file"] = .text(key) }
      } else if key.hasPrefix("no") {
        values[String(key.dropFirst(2))] = .text("off")
      } else if !key.isEmpty {
        values[key] = .text("on")
      }
    }
  }

  private mutating func add(_ members: [JSONMember], below prefix: String) {
    for member in members { add(member.value, as: prefix + member.key) }
  }

  private mutating func add(_ value: JSONValue, as key: String) {
    switch value {
    case .null: values[key] = .null
    case .flag(let flag): values[key] = .flag(flag)
    case .number(let text): values[key] = .number(text)
    case .text(let text): values[key] = .text(text)
    case .record(let members):
      if members.isEmpty { values[key] = .empty }
      add(members, below: key + ".")
    case .list(let items):
      if items.isEmpty { values[key] = .empty }
      add(items.enumerated().map { JSONMember(String($0.offset), $0.element) }, below: key + ".")
    }
  }

  var isEmpty: Bool { values.isEmpty }

  /// Whether they say in which file the image lies.
  var namesFile: Bool {
    values["filename"] != nil || values.keys.contains { $0 == "file" || $0.hasPrefix("file.") }
  }

  subscript(key: String) -> Value? {
    get { values[key] }
    set { values[key] = newValue }
  }

  /// The file that an option names, wherever the name comes from.
  func place(_ key: String) -> FilePlace? {
    if case .file(let place)? = values[key] { return place }
    return values[key]?.text.map { FilePlace(path: $0) }
  }

  func hasText(_ key: String) -> Bool { values[key]?.text != nil }

  /// Takes an option out. What stands for nothing (null) is as if it were not there.
  mutating func take(_ key: String) -> String? { values.removeValue(forKey: key)?.text }

  /// Takes out the options of a child: all that begin with its name and a dot.
  mutating func takeChild(_ name: String) -> NodeOptions {
    var child = NodeOptions()
    let prefix = name + "."
    for (key, value) in values where key.hasPrefix(prefix) {
      child.values[String(key.dropFirst(prefix.count))] = value
      values[key] = nil
    }
    return child
  }

  /// The children `name.0`, `name.1`, ... that are there for one of `names`, by their numbers.
  func numberedChildren(_ names: [String]) -> [String] {
    names.flatMap { name in
      let numbers = values.keys.compactMap { key -> Int? in
        guard key.hasPrefix(name + ".") else { return nil }
        let digits = key.dropFirst(name.count + 1).prefix { $0 != "." }
        guard let number = Int(digits), String(number) == digits, number >= 0 else { return nil }
        return number
      }
      return Set(numbers).sorted().map { "\(name).\($0)" }
    }
  }

  /// Takes over the options of `other` that are not there yet.
  mutating func addMissing(_ other: NodeOptions) {
    values.merge(other.values) { own, _ in own }
  }

  /// Takes out the options that `schema` knows, checked by their kinds.
  mutating func take(_ schema: OptionSchema) throws(EngineError) -> OptionValues {
    var result = OptionValues(schema)
    for option in schema.options {
      if let text = take(option.name) { try result.set(option.name, to: text) }
    }
    return result
  }
}

/// Lists whose items are separated by commas, a comma in an item doubled.
public enum DoubledCommas {
  public static func split(_ text: String) -> [String] {
    var items = [String.UnicodeScalarView()]
    var rest = text.unicodeScalars[...]
    while let scalar = rest.popFirst() {
      if scalar != "," {
        items[items.count - 1].append(scalar)
      } else if rest.first == "," {
        rest.removeFirst()
        items[items.count - 1].append(scalar)
      } else {
        items.append(String.UnicodeScalarView())
      }
    }
    return items.map { String($0) }
  }
}
