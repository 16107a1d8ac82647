/// Passphrases by the ids that command lines give them (`--object secret,id=...`).
public struct SecretStore: Sendable {
  private var secrets: [String: Secret] = [:]
  /// Opens encrypted images whose options name no secret.
  public var unnamed: Secret?

  public init() {}

  public mutating func add(_ secret: Secret, id: String) { secrets[id] = secret }

  public func contains(_ id: String) -> Bool { secrets[id] != nil }

  /// The secret that the option names, in qemu-img's words where there is none.
  public func secret(_ id: String) throws(EngineError) -> Secret {
    guard let secret = secrets[id] else { throw .invalid("No secret with id '\(id)'") }
    return secret
  }

  /// The same for a passphrase of an image: other programs take those as text only.
  func passphrase(_ id: String) throws(EngineError) -> Secret {
    let secret = try secret(id)
    guard secret.isText else { throw .invalid("Data from secret \(id) is not valid UTF-8") }
    return secret
  }

  /// The passphrase of an image that is opened: that of the option called `option`, or the one for all that have none.
  func passphrase(for option: String, in options: [String: String]) throws(EngineError) -> Secret {
    if let id = options[option] { return try passphrase(id) }
    guard let unnamed else { throw .missingKey(option: option) }
    guard unnamed.isText else { throw .invalid("The passphrase is not valid UTF-8") }
    return unnamed
  }
}
