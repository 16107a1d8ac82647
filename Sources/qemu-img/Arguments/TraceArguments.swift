import FormatEngine

/// What `-T` asks for: `[[enable=]PATTERN][,events=FILE][,file=FILE]`. May be given several times.
struct TraceArguments {
  private var wanted: Set<TraceEvent> = []
  private var output: String?

  static var list: String { TraceEvent.allCases.map { $0.rawValue + "\n" }.joined() }

  /// Takes one option's value.
  mutating func take(_ text: String) throws(VerbFailure) {
    var patterns: String?
    var file: String?
    for (index, item) in DoubledCommas.split(text).enumerated() where !item.isEmpty {
      let parts = item.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      switch (parts[0], parts.count > 1 ? parts[1] : nil) {
      case ("enable", let value?): patterns = value
      case ("events", let value?): file = value
      case ("file", let value?): output = value
      case (_, nil) where index == 0: patterns = item
      default: throw VerbFailure("Invalid parameter '\(parts[0])'")
      }
    }
    if let patterns { select(patterns) { Console.warning($0) } }
    if let file { try readEvents(file) }
  }

  /// Lets the engine tell what was asked for.
  func start() throws(VerbFailure) {
    let log = try output.map { (path) throws(VerbFailure) in try Console.openLog(path) }
    guard !wanted.isEmpty else { return }
    Trace.start(wanted) { event, fields in Console.log("\(event.rawValue) \(fields)", to: log) }
  }

  /// A name, or a pattern with `*` and `?`; after `-` it takes away what others gave.
  private mutating func select(_ text: String, warn: (String) -> Void) {
    let removes = text.hasPrefix("-")
    let pattern = removes ? String(text.dropFirst()) : text
    let isPattern = pattern.contains { "*?".contains($0) }
    let events = TraceEvent.allCases.filter { Self.matches(Array($0.rawValue)[...], Array(pattern)[...]) }
    if events.isEmpty && !isPattern { warn("trace event '\(pattern)' does not exist") }
    if removes { wanted.subtract(events) } else { wanted.formUnion(events) }
  }

  private static func matches(_ name: ArraySlice<Character>, _ pattern: ArraySlice<Character>) -> Bool {
    guard let first = pattern.first else { return name.isEmpty }
    let rest = pattern.dropFirst()
    if first == "*" {
      return (0...name.count).contains { matches(name.dropFirst($0), rest) }
    }
    guard let character = name.first, first == "?" || first == character else { return false }
    return matches(name.dropFirst(), rest)
  }

  /// One name or pattern a line; empty lines and such that begin with `#` say nothing.
  private mutating func readEvents(_ path: String) throws(VerbFailure) {
    let text: String
    do throws(EngineError) {
      let file = try FileStore.open(path, access: .readOnly)
      let bytes = try file.bytes(at: 0, count: Int(min(try file.byteCount(), MiB)))
      text = String(decoding: bytes, as: UTF8.self)
    } catch {
      Console.note("qemu-img:\(path): \(error.systemText ?? error.message)")
      throw VerbFailure([])
    }
    for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
      guard !line.isEmpty, !line.hasPrefix("#") else { continue }
      select(String(line)) { Console.note("qemu-img:\(path):\(index + 1): warning: \($0)") }
    }
  }
}
