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
    for item in DoubledCommas.split(text) {
      let parts = item.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      entries.append((String(parts[0]), parts.count > 1 ? String(parts[1]) : nil))
    }
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
