internal import CGcrypt

/// A block cipher with the size of its key, by the name that options have for it.
enum CipherAlgorithm: String, CaseIterable, Sendable {
  case aes128 = "aes-128"
  case aes192 = "aes-192"
  case aes256 = "aes-256"
  case cast5 = "cast5-128"
  case serpent128 = "serpent-128"
  case serpent192 = "serpent-192"
  case serpent256 = "serpent-256"
  case twofish128 = "twofish-128"
  case twofish256 = "twofish-256"

  /// Names that options may have and that are refused: those that are too short for disks, and Twofish with a
  /// key of 24 bytes, which libgcrypt has not.
  static let refusedNames: Set<String> = ["des", "3des", "twofish-192"]

  private struct Row {
    /// As LUKS headers have it.
    var family: String
    var keyByteCount: Int
    var blockByteCount: Int
    var gcrypt: gcry_cipher_algos
  }

  private var row: Row {
    switch self {
    case .aes128: Row(family: "aes", keyByteCount: 16, blockByteCount: 16, gcrypt: GCRY_CIPHER_AES)
    case .aes192: Row(family: "aes", keyByteCount: 24, blockByteCount: 16, gcrypt: GCRY_CIPHER_AES192)
    case .aes256: Row(family: "aes", keyByteCount: 32, blockByteCount: 16, gcrypt: GCRY_CIPHER_AES256)
    case .cast5: Row(family: "cast5", keyByteCount: 16, blockByteCount: 8, gcrypt: GCRY_CIPHER_CAST5)
    case .serpent128:
      Row(family: "serpent", keyByteCount: 16, blockByteCount: 16, gcrypt: GCRY_CIPHER_SERPENT128)
    case .serpent192:
      Row(family: "serpent", keyByteCount: 24, blockByteCount: 16, gcrypt: GCRY_CIPHER_SERPENT192)
    case .serpent256:
      Row(family: "serpent", keyByteCount: 32, blockByteCount: 16, gcrypt: GCRY_CIPHER_SERPENT256)
    case .twofish128:
      Row(family: "twofish", keyByteCount: 16, blockByteCount: 16, gcrypt: GCRY_CIPHER_TWOFISH128)
    case .twofish256:
      Row(family: "twofish", keyByteCount: 32, blockByteCount: 16, gcrypt: GCRY_CIPHER_TWOFISH)
    }
  }

  var family: String { row.family }
  var keyByteCount: Int { row.keyByteCount }
  var blockByteCount: Int { row.blockByteCount }
  var gcryptNumber: CInt { CInt(bitPattern: row.gcrypt.rawValue) }

  static func named(_ family: String, keyByteCount: Int) -> CipherAlgorithm? {
    allCases.first { $0.family == family && $0.keyByteCount == keyByteCount }
  }
}

/// How blocks are chained inside a sector.
enum CipherMode: String, CaseIterable, Sendable {
  case ecb, cbc, ctr, xts

  var gcryptNumber: CInt {
    let mode =
      switch self {
      case .ecb: GCRY_CIPHER_MODE_ECB
      case .cbc: GCRY_CIPHER_MODE_CBC
      case .ctr: GCRY_CIPHER_MODE_CTR
      case .xts: GCRY_CIPHER_MODE_XTS
      }
    return CInt(bitPattern: mode.rawValue)
  }

  /// XTS takes two keys.
  var keyCount: Int { self == .xts ? 2 : 1 }
}

/// How a sector's initialization vector comes from its number.
enum IVGenerator: String, CaseIterable, Sendable {
  /// The low 32 bits of the number, little-endian.
  case plain
  /// The number, little-endian.
  case plain64
  /// The number, encrypted with a hash of the key.
  case essiv
}

/// All that decides how sectors are encrypted, but for the key.
struct CipherSuite: Equatable, Sendable {
  var algorithm: CipherAlgorithm
  var mode: CipherMode
  var ivGenerator: IVGenerator
  /// Only `essiv` uses it.
  var ivHash: HashAlgorithm?

  var keyByteCount: Int { algorithm.keyByteCount * mode.keyCount }

  /// The cipher that encrypts sector numbers for `essiv`: of the same family, its key as long as the hash.
  func essivAlgorithm() throws(EngineError) -> CipherAlgorithm? {
    guard ivGenerator == .essiv else { return nil }
    guard let ivHash else { throw .corrupt("Missing IV generator hash specification") }
    guard algorithm != .cast5 else {
      throw .unsupported("Cipher \(algorithm.rawValue) not supported with essiv")
    }
    guard let found = CipherAlgorithm.named(algorithm.family, keyByteCount: ivHash.digestByteCount) else {
      throw .unsupported(
        "No \(algorithm.displayName) cipher with key size \(ivHash.digestByteCount) available")
    }
    return found
  }

  /// Refuses what does not go together.
  func validate() throws(EngineError) {
    _ = try essivAlgorithm()
    if mode == .xts && algorithm.blockByteCount != 16 { throw .unsupported("Unsupported cipher mode xts") }
  }
}

extension CipherAlgorithm {
  /// The family as messages write it.
  fileprivate var displayName: String {
    switch family {
    case "aes": "AES"
    case "serpent": "Serpent"
    case "twofish": "Twofish"
    default: family
    }
  }
}

/// The mode as a LUKS header writes it: `xts-plain64`, `cbc-essiv:sha256`.
extension CipherSuite {
  var modeText: String {
    "\(mode.rawValue)-\(ivGenerator.rawValue)" + (ivHash.map { ":\($0.rawValue)" } ?? "")
  }

  init(family: String, modeText: String, keyByteCount: Int) throws(EngineError) {
    guard let dash = modeText.firstIndex(of: "-") else {
      throw .unsupported("Unexpected cipher mode string format '\(modeText)'")
    }
    let parts = modeText[modeText.index(after: dash)...].split(
      separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
    let (generatorName, hashName) = (String(parts[0]), parts.count > 1 ? String(parts[1]) : nil)
    var hash: HashAlgorithm?
    if let hashName {
      guard let known = HashAlgorithm(rawValue: hashName) else {
        throw .unsupported("Hash algorithm '\(hashName)' not supported")
      }
      hash = known
    }
    let modeName = String(modeText[..<dash])
    guard let mode = CipherMode(rawValue: modeName) else {
      throw .unsupported("Cipher mode '\(modeName)' not supported")
    }
    let half = keyByteCount / mode.keyCount
    guard half * mode.keyCount == keyByteCount,
      let algorithm = CipherAlgorithm.named(family, keyByteCount: half)
    else {
      throw .unsupported("Algorithm '\(family)' with key size \(half) bytes not supported")
    }
    guard let generator = IVGenerator(rawValue: generatorName) else {
      throw .unsupported("IV generator '\(generatorName)' not supported")
    }
    self.init(algorithm: algorithm, mode: mode, ivGenerator: generator, ivHash: hash)
    try validate()
  }
}
