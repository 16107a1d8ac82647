import FormatEngine

/// The lists after `-o`: `name=value,flag,noflag`, a comma in a value doubled.
struct OptionList {
  private var entries: [(name: String, value: String?)] = []

  /// Adds a list. Empty ones, and such that begin or end with a single comma, are refused.
  mutating func add(_ text: String) throws(VerbFailure) {
    let commasAtEnd = text.utf8.reversed().prefix { $0 == UInt8(ascii: ",") }.count
    guard !text.isEmpty, text.utf8.first != UInt8(ascii: ","), commasAtEnd % 2 == 0 else {
      throw VerbFailure("Invalid option list: \(text)")
    }
    entries += Self.entries(of: text)
  }

  /// What a list says, as it stands.
  static func entries(of text: String) -> [(name: String, value: String?)] {
    DoubledCommas.split(text).map { item in
      let parts = item.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      return (String(parts[0]), parts.count > 1 ? String(parts[1]) : nil)
    }
  }

  /// Of the options, in the order in which they were given.
  var names: [String] {
    entries.map { $0.value == nil && $0.name.hasPrefix("no") ? String($0.name.dropFirst(2)) : $0.name }
  }

  var isEmpty: Bool { entries.isEmpty }

  /// Whether help is asked for instead.
  var asksForHelp: Bool { entries.contains { $0.value == nil && ($0.name == "help" || $0.name == "?") } }

  /// Puts the entries into `values`, later ones over earlier ones.
  func apply(to values: inout OptionValues) throws(EngineError) {
    for (name, value) in entries {
      if let value {
        try values.set(name, to: value)
      } else if name.hasPrefix("no") {
        // A name alone stands for "on", with "no" before it for "off"; qemu-img makes no exceptions.
        try values.set(String(name.dropFirst(2)), to: "off")
      } else {
        try values.set(name, to: "on")
      }
    }
  }
}
