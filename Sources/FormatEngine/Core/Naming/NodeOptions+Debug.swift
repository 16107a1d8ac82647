/// Options of QEMU's driver blkdebug, in a tree and in its configuration file.
extension NodeOptions {
  private static let failure = OptionSchema([
    .init("event", .text, "When it fails"),
    .init("iotype", .text, "Which requests fail"),
    .init("state", .number, "In which state"),
    .init("errno", .number, "The error"),
    .init("sector", .number, "The sector at which it fails"),
    .init("once", .flag, "Fail only once"),
    .init("immediately", .flag, "Fail without waiting"),
  ])
  private static let transition = OptionSchema([
    .init("event", .text, "When the state changes"),
    .init("state", .number, "From which state"),
    .init("new_state", .number, "The state to come"),
  ])

  /// What a name `blkdebug:CONFIGURATION:PATH` stands for; the configuration may be empty.
  init?(debugName name: String) {
    let parts = name.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
    guard parts.count == 3, parts[0] == "blkdebug" else { return nil }
    self.init()
    self["file.driver"] = .text("blkdebug")
    if !parts[1].isEmpty { self["file.config"] = .text(String(parts[1])) }
    self["file.image.filename"] = .text(String(parts[2]))
  }

  /// Takes out the rules of a node: `inject-error.0.event` and so on.
  mutating func takeDebugRules() throws(EngineError) -> DebugRules {
    var rules = DebugRules()
    try forEachItem(of: "inject-error") { (item) throws(EngineError) in
      rules.failures.append(try Self.failure(item))
    }
    try forEachItem(of: "set-state") { (item) throws(EngineError) in
      rules.transitions.append(try Self.transition(item))
    }
    return rules
  }

  private mutating func forEachItem(of list: String, _ body: (NodeOptions) throws(EngineError) -> Void)
    throws(EngineError)
  {
    var items = takeChild(list)
    _ = take(list)
    var index = 0
    while true {
      let item = items.takeChild(String(index))
      guard !item.isEmpty else { break }
      try body(item)
      index += 1
    }
    if let other = items.values.keys.min() { throw .invalid("Invalid parameter '\(list).\(other)'") }
  }

  private static func values(_ item: NodeOptions, _ schema: OptionSchema) throws(EngineError) -> OptionValues
  {
    var rest = item
    let values = try rest.take(schema)
    if let unknown = rest.values.keys.min() { throw .invalid("Invalid parameter '\(unknown)'") }
    return values
  }

  private static func failure(_ item: NodeOptions) throws(EngineError) -> DebugRules.Failure {
    let values = try values(item, failure)
    guard let event = values.text("event") else { throw .invalid("Missing event name for rule") }
    var result = DebugRules.Failure(event: event)
    if let text = values.text("iotype") {
      guard let request = DebugRules.Request(rawValue: text) else {
        throw .invalid("invalid parameter value: \(text)")
      }
      result.request = request
    }
    result.state = Int(clamping: values.number("state") ?? 0)
    if let errno = values.number("errno") { result.errno = CInt(clamping: errno) }
    // -1, the driver's default, stands for any sector.
    result.sector = values.number("sector").flatMap { $0 == .max ? nil : $0 }
    result.happensOnce = values.flag("once") ?? false
    return result
  }

  private static func transition(_ item: NodeOptions) throws(EngineError) -> DebugRules.Transition {
    let values = try values(item, transition)
    guard let event = values.text("event") else { throw .invalid("Missing event name for rule") }
    return DebugRules.Transition(
      event: event, state: Int(clamping: values.number("state") ?? 0),
      newState: Int(clamping: values.number("new_state") ?? 0))
  }

  /// The rules of a configuration file: sections `[inject-error]` and `[set-state]` of lines `name = "value"`.
  static func debugRules(configuration bytes: [UInt8]) throws(EngineError) -> DebugRules {
    var rules = DebugRules()
    var section: (name: String, item: NodeOptions)?
    func finish() throws(EngineError) {
      switch section?.name {
      case "inject-error": rules.failures.append(try failure(section?.item ?? NodeOptions()))
      case "set-state": rules.transitions.append(try transition(section?.item ?? NodeOptions()))
      case nil: break
      case let name?: throw .invalid("There is no option group '\(name)'")
      }
    }
    for line in String(decoding: bytes, as: UTF8.self).split(whereSeparator: \.isNewline) {
      let text = line.drop { $0.isWhitespace }
      if text.isEmpty || text.hasPrefix("#") { continue }
      if text.hasPrefix("["), let end = text.firstIndex(of: "]") {
        try finish()
        section = (String(text[text.index(after: text.startIndex)..<end]), NodeOptions())
        continue
      }
      let parts = text.split(separator: "=", maxSplits: 1)
      let quoted = parts.count > 1 ? parts[1].split(separator: "\"", omittingEmptySubsequences: false) : []
      guard section != nil, quoted.count > 2 else { throw .invalid("Could not read the rules: \(text)") }
      let key = parts[0].split(whereSeparator: \.isWhitespace).first.map { String($0) } ?? ""
      section?.item[key] = .text(String(quoted[1]))
    }
    try finish()
    return rules
  }
}
