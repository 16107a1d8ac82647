/// AES, the only encryption of the format: it has no header, so a wrong passphrase gives wrong bytes.
enum QcowEncryption {
  private static let prefix = "encrypt."

  /// Nil where nothing is encrypted, and where the image is opened for inspection, without its key.
  static func open(_ header: QcowHeader, _ request: LayerRequest) throws(EngineError) -> LayerCipher? {
    guard header.isEncrypted else { return nil }
    if let wanted = request.options[prefix + "format"], wanted != "aes" {
      throw .invalid("Header reported 'aes' encryption format but options specify '\(wanted)'")
    }
    if request.isForInspection { return nil }
    let passphrase = try request.secrets.passphrase(for: prefix + "key-secret", in: request.options)
    return try LayerCipher(legacyPassphrase: passphrase)
  }

  /// Whether a new image is to be encrypted. The passphrase is looked up, though nothing of it is stored.
  static func isWanted(_ options: OptionValues, _ secrets: SecretStore) throws(EngineError) -> Bool {
    let isOldSwitchOn = options.flag("encryption") == true
    switch options.text(prefix + "format") {
    case .some where isOldSwitchOn:
      throw .invalid("'encrypt.format' and its alias 'encryption' can't be used at the same time")
    // "qcow" is the name that the method has where it is no option of an image.
    case "aes"?, "qcow"?: break
    case "luks"?: throw .unsupported("Unsupported encryption format")
    case let text?: throw .invalid("Parameter 'format' does not accept value '\(text)'")
    case nil where isOldSwitchOn: break
    case nil:
      guard !options.isGiven(prefix + "key-secret") else {
        throw .invalid("Parameter 'encrypt.format' is missing")
      }
      return false
    }
    guard let id = options.text(prefix + "key-secret") else { throw .missingKey }
    _ = try secrets.passphrase(id)
    return true
  }
}
