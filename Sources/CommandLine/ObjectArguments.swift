package import FormatEngine

/// What `--object` defines: `secret,id=ID,data=TEXT`, or the same as JSON. The messages are QEMU's.
package enum ObjectArguments {
  /// What is asked for by `help`, or by `secret,help`; nil where the text defines an object.
  package static func help(for text: String) -> String? {
    switch text {
    case "help", "?": "List of user creatable objects:\n  secret\n"
    case "secret,help", "secret,?":
      "secret options:\n  data=<string>\n  file=<string>\n  format=<QCryptoSecretFormat>\n"
    default: nil
    }
  }

  /// Adds the object to `secrets`; where it lies in a file, that is read.
  package static func define(_ text: String, in secrets: inout SecretStore) throws(EngineError) {
    try add(try properties(of: text), to: &secrets)
  }

  private static func properties(of text: String) throws(EngineError) -> [String: String] {
    if text.hasPrefix("{") {
      guard case .record(let members) = try JSONParser.parse(text) else { return [:] }
      var result: [String: String] = [:]
      for member in members {
        guard case .text(let value) = member.value else {
          throw .invalid("Invalid parameter type for '\(member.key)', expected: string")
        }
        result[member.key] = value
      }
      return result
    }
    var result: [String: String] = [:]
    for (index, item) in DoubledCommas.split(text).enumerated()
    where !item.isEmpty || (index == 0 && text != "") {
      if item.isEmpty || item.hasPrefix("=") { throw .invalid("Invalid parameter ''") }
      let parts = item.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      if parts.count > 1 {
        result[String(parts[0])] = String(parts[1])
      } else if index == 0 {
        result["qom-type"] = item
      } else {
        throw .invalid("Expected '=' after parameter '\(item)'")
      }
    }
    return result
  }

  private static func add(_ properties: [String: String], to secrets: inout SecretStore) throws(EngineError) {
    guard let type = properties["qom-type"] else { throw .invalid("Parameter 'qom-type' is missing") }
    guard type == "secret" else { throw .invalid("Parameter 'qom-type' does not accept value '\(type)'") }
    guard let id = properties["id"] else { throw .invalid("Parameter 'id' is missing") }
    let known: Set = ["qom-type", "id", "data", "file", "format", "keyid", "iv"]
    if let unknown = properties.keys.filter({ !known.contains($0) }).min() {
      throw .invalid("Parameter '\(unknown)' is unexpected")
    }
    guard let encoding = Secret.Encoding(rawValue: properties["format"] ?? "raw") else {
      throw .invalid("Parameter 'format' does not accept value '\(properties["format"] ?? "")'")
    }
    guard isIdentifier(id) else {
      throw .invalid(
        "Parameter 'id' expects an identifier\n"
          + "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.")
    }
    guard properties["keyid"] == nil else {
      throw .unsupported("Secrets that are encrypted themselves ('keyid') are not supported")
    }
    guard !secrets.contains(id) else {
      throw .invalid("attempt to add duplicate property '\(id)' to object (type 'container')")
    }
    switch (properties["data"], properties["file"]) {
    case (let data?, nil): secrets.add(try Secret.text(data, encoding), id: id)
    case (nil, let file?): secrets.add(try Secret.file(file, encoding), id: id)
    case (nil, nil): throw .invalid("Either 'file' or 'data' must be provided")
    default: throw .invalid("'file' and 'data' are mutually exclusive")
    }
  }

  private static func isIdentifier(_ text: String) -> Bool {
    guard let first = text.first, first.isASCII, first.isLetter else { return false }
    return text.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "-._".contains($0)) }
  }
}
