/// What a new LUKS header is to be like, as the options say it.
struct LUKSOptions: Sendable {
  var suite = CipherSuite(algorithm: .aes256, mode: .xts, ivGenerator: .plain64)
  var hash = HashAlgorithm.sha256
  /// Time of a processor that one try of a passphrase takes.
  var milliseconds: UInt64 = Self.usualMilliseconds

  static let usualMilliseconds: UInt64 = 2000

  /// What `create` takes, in the order in which it prints them.
  static func options(prefix: String) -> [OptionSchema.Option] {
    [
      .init("\(prefix)cipher-alg", .text, "Name of encryption cipher algorithm"),
      .init("\(prefix)cipher-mode", .text, "Name of encryption cipher mode"),
      .init("\(prefix)ivgen-alg", .text, "Name of IV generator algorithm"),
      .init("\(prefix)ivgen-hash-alg", .text, "Name of IV generator hash algorithm"),
      .init("\(prefix)hash-alg", .text, "Name of encryption hash algorithm"),
      .init("\(prefix)iter-time", .number, "Time to spend in PBKDF in milliseconds"),
    ]
  }

  /// `prefix`: what stands before the names, such as `encrypt.`.
  init(_ options: OptionValues, prefix: String) throws(EngineError) {
    func value<T>(_ name: String, _ parse: (String) -> T?) throws(EngineError) -> T? {
      guard let text = options.text(prefix + name) else { return nil }
      guard let value = parse(text) else {
        throw .invalid("Parameter '\(name)' does not accept value '\(text)'")
      }
      return value
    }
    if let name = options.text(prefix + "cipher-alg"), CipherAlgorithm.refusedNames.contains(name) {
      throw .unsupported("Algorithm '\(name)' not supported")
    }
    suite.algorithm = try value("cipher-alg", CipherAlgorithm.init) ?? suite.algorithm
    suite.mode = try value("cipher-mode", CipherMode.init) ?? suite.mode
    suite.ivGenerator = try value("ivgen-alg", IVGenerator.init) ?? suite.ivGenerator
    suite.ivHash = try value("ivgen-hash-alg", HashAlgorithm.init)
    if suite.ivGenerator == .essiv && suite.ivHash == nil { suite.ivHash = .sha256 }
    hash = try value("hash-alg", HashAlgorithm.init) ?? hash
    milliseconds = options.number(prefix + "iter-time") ?? milliseconds
    try suite.validate()
  }
}

extension LUKSHeader {
  /// Key material begins at multiples of this many bytes.
  private static let materialAlignment: UInt64 = 4096

  /// Bytes of the header with all its key material: where the payload of a LUKS volume may begin.
  static func wholeByteCount(for suite: CipherSuite) -> UInt64 {
    materialAlignment + UInt64(slotCount) * slotDistance(suite)
  }

  private static func slotDistance(_ suite: CipherSuite) -> UInt64 {
    (UInt64(suite.keyByteCount) * UInt64(stripeCount)).aligned(upTo: materialAlignment)
  }

  /// Writes a header with a new volume key, its first slot opened by `passphrase`. The payload of a detached header
  /// begins where its file does.
  static func create(
    _ options: LUKSOptions, for passphrase: Secret, isDetached: Bool = false, in area: LUKSArea
  ) throws(EngineError) -> (header: LUKSHeader, volumeKey: Secret) {
    let suite = options.suite
    let key = try Gcrypt.randomSecret(count: suite.keyByteCount)
    let salt = try Gcrypt.randomBytes(count: saltByteCount)
    let iterations = try KeyDerivation.iterations(
      taking: options.milliseconds / 8, hash: options.hash, byteCount: digestByteCount)
    var slots: [KeySlot] = []
    for index in 0..<UInt64(slotCount) {
      let offset = materialAlignment + index * slotDistance(suite)
      slots.append(KeySlot(materialSector: UInt32(offset / sectorByteCount)))
    }
    var header = LUKSHeader(
      suite: suite, hash: options.hash,
      payloadSector: isDetached ? 0 : UInt32(wholeByteCount(for: suite) / sectorByteCount),
      keyDigest: try digest(of: key, salt: salt, iterations: iterations, options.hash), keyDigestSalt: salt,
      keyDigestIterations: iterations, uuid: try randomUUID(), slots: slots)
    try area.write(bytes: header.serialised(), at: 0)
    try header.setSlot(0, to: key, for: passphrase, milliseconds: options.milliseconds, in: area)
    return (header, key)
  }

  /// A random UUID (RFC 9562, version 4).
  private static func randomUUID() throws(EngineError) -> String {
    var bytes = try Gcrypt.randomBytes(count: 16)
    bytes[6] = bytes[6] & 0x0f | 0x40
    bytes[8] = bytes[8] & 0x3f | 0x80
    let digits = bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    var groups: [Substring] = []
    var rest = digits[...]
    for length in [8, 4, 4, 4, 12] {
      groups.append(rest.prefix(length))
      rest = rest.dropFirst(length)
    }
    return groups.joined(separator: "-")
  }
}

extension LUKSHeader {
  /// What `info` tells of it.
  var infoFields: [InfoField] {
    var fields = [
      InfoField("cipher-alg", .text(suite.algorithm.rawValue)),
      InfoField("cipher-mode", .text(suite.mode.rawValue)),
      InfoField("ivgen-alg", .text(suite.ivGenerator.rawValue)),
    ]
    if suite.ivGenerator == .essiv, let ivHash = suite.ivHash {
      fields.append(InfoField("ivgen-hash-alg", .text(ivHash.rawValue)))
    }
    fields += [
      InfoField("hash-alg", .text(hash.rawValue)), InfoField("detached-header", .flag(payloadSector == 0)),
      InfoField("payload-offset", .integer(Int64(payloadSector) * Int64(Self.sectorByteCount))),
      InfoField("master-key-iters", .integer(Int64(keyDigestIterations))), InfoField("uuid", .text(uuid)),
      InfoField("slots", .list(slots.map(Self.infoValue))),
    ]
    return fields
  }

  private static func infoValue(of slot: KeySlot) -> InfoValue {
    let offset = Int64(slot.materialSector) * Int64(sectorByteCount)
    var fields = [InfoField("active", .flag(slot.isActive))]
    if slot.isActive {
      fields.append(InfoField("iters", .integer(Int64(slot.iterations))))
      fields.append(InfoField("stripes", .integer(Int64(slot.stripes))))
    }
    fields.append(InfoField("key-offset", .integer(offset)))
    return .record(fields)
  }
}
