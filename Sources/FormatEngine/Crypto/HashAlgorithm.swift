internal import CGcrypt

/// A hash function, by the name that LUKS headers and options have for it.
enum HashAlgorithm: String, CaseIterable, Sendable {
  case md5, sha1, sha224, sha256, sha384, sha512, ripemd160

  var gcryptNumber: CInt {
    let algorithm =
      switch self {
      case .md5: GCRY_MD_MD5
      case .sha1: GCRY_MD_SHA1
      case .sha224: GCRY_MD_SHA224
      case .sha256: GCRY_MD_SHA256
      case .sha384: GCRY_MD_SHA384
      case .sha512: GCRY_MD_SHA512
      case .ripemd160: GCRY_MD_RMD160
      }
    return CInt(bitPattern: algorithm.rawValue)
  }

  var digestByteCount: Int {
    switch self {
    case .md5: 16
    case .sha1, .ripemd160: 20
    case .sha224: 28
    case .sha256: 32
    case .sha384: 48
    case .sha512: 64
    }
  }

  /// Writes the digest of `bytes` to the start of `target`, which has room for it.
  func digest(_ bytes: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    try Gcrypt.start()
    precondition(target.count >= digestByteCount)
    unsafe gcry_md_hash_buffer(gcryptNumber, target.baseAddress, bytes.baseAddress, bytes.count)
  }

  func digest(_ bytes: [UInt8]) throws(EngineError) -> [UInt8] { try digest(bytes[...]) }

  func digest(_ bytes: ArraySlice<UInt8>) throws(EngineError) -> [UInt8] {
    var result = [UInt8](repeating: 0, count: digestByteCount)
    var failure: EngineError?
    unsafe result.withUnsafeMutableBytes { target in
      unsafe bytes.withUnsafeBytes { source in
        do throws(EngineError) { unsafe try digest(source, into: target) } catch { failure = error }
      }
    }
    if let failure { throw failure }
    return result
  }

  func digest(_ secret: Secret) throws(EngineError) -> Secret {
    unsafe try Secret(count: digestByteCount) { (target) throws(EngineError) in
      unsafe try secret.withBytes { (bytes) throws(EngineError) in unsafe try digest(bytes, into: target) }
    }
  }
}
