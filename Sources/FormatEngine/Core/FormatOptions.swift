/// What a format's `create` takes after `-o`.
public struct OptionSchema: Sendable {
  public enum Kind: Sendable, Equatable {
    case text
    case size
    case number
    case flag
  }

  public struct Option: Sendable {
    public var name: String
    public var kind: Kind
    public var help: String
    /// Shown by `create` when the option is not given, as qemu-img shows it.
    public var defaultText: String?
    /// Belongs to the file below the format: listed by `-o help` only when a file is named.
    public var isHidden: Bool
    /// Taken, and not listed by `-o help`: what qemu-img's format of this name has not got.
    public var isUnlisted: Bool
    /// For an image that is opened: other bytes are read with it, so that it belongs to the image's name.
    public var changesContent: Bool

    public init(
      _ name: String, _ kind: Kind, _ help: String, default defaultText: String? = nil,
      isHidden: Bool = false, isUnlisted: Bool = false, changesContent: Bool = false
    ) {
      self.name = name
      self.kind = kind
      self.help = help
      self.defaultText = defaultText
      self.isHidden = isHidden
      self.isUnlisted = isUnlisted
      self.changesContent = changesContent
    }
  }

  /// In the order in which `create` prints them.
  public var options: [Option]

  public init(_ options: [Option]) { self.options = options }

  public func option(named name: String) -> Option? { options.first { $0.name == name } }
}

/// Values of options, typed by the schema.
public struct OptionValues: Sendable {
  public enum Value: Sendable, Equatable {
    case text(String)
    case number(UInt64)
    case flag(Bool)

    /// As qemu-img prints it.
    public var text: String {
      switch self {
      case .text(let text): text
      // Signed, as qemu-img prints it.
      case .number(let number): String(Int64(bitPattern: number))
      case .flag(let flag): flag ? "on" : "off"
      }
    }
  }

  public let schema: OptionSchema
  private var values: [String: Value] = [:]

  public init(_ schema: OptionSchema) { self.schema = schema }

  /// The given value, else the schema's default.
  public subscript(_ name: String) -> Value? { values[name] ?? defaultValue(name) }

  public func isGiven(_ name: String) -> Bool { values[name] != nil }
  public func text(_ name: String) -> String? { self[name]?.text }

  public func number(_ name: String) -> UInt64? {
    if case .number(let number)? = self[name] { number } else { nil }
  }

  public func flag(_ name: String) -> Bool? {
    if case .flag(let flag)? = self[name] { flag } else { nil }
  }

  /// Parses `text` by the option's kind. Messages are qemu-img's.
  public mutating func set(_ name: String, to text: String) throws(EngineError) {
    guard let option = schema.option(named: name) else {
      throw .invalid("Invalid parameter '\(name)'")
    }
    values[name] = try Self.parse(text, as: option)
  }

  public mutating func set(_ name: String, to value: Value) { values[name] = value }
  public mutating func remove(_ name: String) { values[name] = nil }

  /// Name and value of every option that is given or has a default, in the schema's order.
  public var shown: [(name: String, value: String)] {
    schema.options.compactMap { option in
      self[option.name].map { (option.name, $0.text) }
    }
  }

  private func defaultValue(_ name: String) -> Value? {
    guard let option = schema.option(named: name), let text = option.defaultText else { return nil }
    return try? Self.parse(text, as: option)
  }

  private static func parse(_ text: String, as option: OptionSchema.Option) throws(EngineError) -> Value {
    switch option.kind {
    case .text: return .text(text)
    case .flag:
      switch text {
      case "on", "yes", "true", "y": return .flag(true)
      case "off", "no", "false", "n": return .flag(false)
      default: throw .invalid("Parameter '\(option.name)' expects 'on' or 'off'")
      }
    case .number:
      guard let number = SizeText.parseInteger(text) else {
        throw .invalid("Parameter '\(option.name)' expects a number")
      }
      return .number(number)
    case .size:
      return .number(try SizeText.parseOption(text, name: option.name))
    }
  }
}
