/// How an image's guest data is encrypted (qcow2.txt, "Full disk encryption header pointer", "Data encryption").
final class Qcow2Encryption: Sendable {
  /// As the header has it; 0 is none.
  enum Method: UInt32 {
    case aes = 1
    case luks = 2

    var name: String {
      switch self {
      case .aes: "aes"
      case .luks: "luks"
      }
    }
  }

  let method: Method
  /// Nil where the image was opened for inspection, without its key.
  let cipher: LayerCipher?
  /// What LUKS key slots hold; nil as above, and for AES.
  let volumeKey: Secret?
  /// Where the LUKS header is; nil for AES.
  let area: LUKSArea?
  /// Changes with the key slots; nil for AES.
  let header: Guarded<LUKSHeader?>

  private init(
    _ method: Method, cipher: LayerCipher? = nil, volumeKey: Secret? = nil, area: LUKSArea? = nil,
    header: LUKSHeader? = nil
  ) {
    self.method = method
    self.cipher = cipher
    self.volumeKey = volumeKey
    self.area = area
    self.header = Guarded(header)
  }

  /// LUKS.
  convenience init(_ header: LUKSHeader, volumeKey: Secret, in area: LUKSArea) throws(EngineError) {
    let cipher = LayerCipher(try SectorCipher(header.suite, key: volumeKey), numbering: .host)
    self.init(.luks, cipher: cipher, volumeKey: volumeKey, area: area, header: header)
  }

  /// The old method.
  convenience init(legacyPassphrase passphrase: Secret) throws(EngineError) {
    self.init(.aes, cipher: try LayerCipher(legacyPassphrase: passphrase))
  }

  /// Nil for an image that is not encrypted. The options name the passphrase.
  static func open(_ prologue: Qcow2Prologue, _ file: any ByteStore, _ request: LayerRequest)
    throws(EngineError) -> Qcow2Encryption?
  {
    guard let method = Method(rawValue: prologue.header.encryptionMethod) else {
      try requireNoHeader(prologue)
      return nil
    }
    try check(request.options, method)
    switch method {
    case .aes:
      try requireNoHeader(prologue)
      if request.isForInspection { return Qcow2Encryption(.aes) }
      return try Qcow2Encryption(legacyPassphrase: passphrase(request))
    case .luks:
      let area = try area(of: prologue, file)
      let header = try area.readHeader()
      if request.isForInspection { return Qcow2Encryption(.luks, area: area, header: header) }
      let key = try header.volumeKey(for: try passphrase(request), in: area)
      return try Qcow2Encryption(header, volumeKey: key, in: area)
    }
  }

  /// Only LUKS has a header of its own.
  private static func requireNoHeader(_ prologue: Qcow2Prologue) throws(EngineError) {
    guard prologue.extensions[Qcow2HeaderExtensions.Kind.encryption] == nil else {
      throw .corrupt("CRYPTO header extension only expected with LUKS encryption method")
    }
  }

  private static let prefix = "encrypt."

  private static func check(_ options: [String: String], _ method: Method) throws(EngineError) {
    if let wanted = options[prefix + "format"], wanted != method.name {
      throw .invalid("Header reported '\(method.name)' encryption format but options specify '\(wanted)'")
    }
  }

  private static func passphrase(_ request: LayerRequest) throws(EngineError) -> Secret {
    try request.secrets.passphrase(for: prefix + "key-secret", in: request.options)
  }

  private static func area(of prologue: Qcow2Prologue, _ file: any ByteStore) throws(EngineError) -> LUKSArea
  {
    guard let content = prologue.extensions[Qcow2HeaderExtensions.Kind.encryption] else {
      throw .corrupt("Missing CRYPTO header for crypt method \(prologue.header.encryptionMethod)")
    }
    guard content.count == 16, let (offset, byteCount) = prologue.extensions.encryptionHeader else {
      throw .corrupt("CRYPTO header extension size \(content.count), but expected size 16")
    }
    let clusterSize = prologue.header.geometry.clusterSize
    guard offset.isAligned(to: clusterSize) else {
      throw .corrupt(
        "Encryption header offset '\(offset)' is not a multiple of cluster size '\(clusterSize)'", at: offset)
    }
    return try LUKSArea(store: file, offset: offset, byteCount: byteCount)
  }

  /// The header extension that points to a LUKS header.
  static func pointer(to offset: UInt64, byteCount: UInt64) -> [UInt8] {
    var content: [UInt8] = []
    content.append(bigEndian: offset)
    content.append(bigEndian: byteCount)
    return content
  }

  var infoFields: [InfoField] {
    [InfoField("format", .text(method.name))] + (header.withLock { $0?.infoFields } ?? [])
  }
}

/// The encryption of an image to be made.
struct Qcow2NewEncryption {
  let method: Qcow2Encryption.Method
  private let passphrase: Secret
  private let luks: LUKSOptions?

  private static let prefix = "encrypt."

  /// Nil where the options ask for none.
  init?(_ options: OptionValues, _ secrets: SecretStore) throws(EngineError) {
    let isOldSwitchOn = options.flag("encryption") == true
    let given = options.schema.options.map(\.name)
      .filter { $0.hasPrefix(Self.prefix) && options.isGiven($0) }
    switch options.text(Self.prefix + "format") {
    case .some where isOldSwitchOn:
      throw .invalid("'encrypt.format' and its alias 'encryption' can't be used at the same time")
    case "luks"?: method = .luks
    // "qcow" is the name that the method has where it is no option of qcow2.
    case "aes"?, "qcow"?: method = .aes
    case let text?: throw .invalid("Parameter 'format' does not accept value '\(text)'")
    case nil where isOldSwitchOn: method = .aes
    case nil:
      guard given.isEmpty else { throw .invalid("Parameter 'encrypt.format' is missing") }
      return nil
    }
    if method == .aes {
      for name in given where !["format", "key-secret"].contains(name.dropFirst(Self.prefix.count)) {
        throw .invalid("Parameter '\(name)' is unexpected")
      }
      luks = nil
    } else {
      luks = try LUKSOptions(options, prefix: Self.prefix)
    }
    guard let id = options.text(Self.prefix + "key-secret") else { throw .missingKey }
    passphrase = try secrets.passphrase(id)
  }

  /// Bytes of the LUKS header with its key material.
  var headerByteCount: UInt64 { luks.map { LUKSHeader.wholeByteCount(for: $0.suite) } ?? 0 }

  /// Writes what the image needs of its own for it: the LUKS header at `offset`.
  func create(in file: any ByteStore, at offset: UInt64) throws(EngineError) -> Qcow2Encryption {
    guard let luks else { return try Qcow2Encryption(legacyPassphrase: passphrase) }
    let area = try LUKSArea(store: file, offset: offset, byteCount: headerByteCount)
    let (header, volumeKey) = try LUKSHeader.create(luks, for: passphrase, in: area)
    return try Qcow2Encryption(header, volumeKey: volumeKey, in: area)
  }
}
