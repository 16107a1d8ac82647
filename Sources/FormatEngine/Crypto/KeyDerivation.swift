internal import CGcrypt
import Glibc

/// Keys from passphrases: PBKDF2 (RFC 8018) with HMAC.
enum KeyDerivation {
  static func key(
    from passphrase: Secret, salt: [UInt8], iterations: UInt32, hash: HashAlgorithm, byteCount: Int
  ) throws(EngineError) -> Secret {
    try Gcrypt.start()
    return unsafe try Secret(count: byteCount) { (target) throws(EngineError) in
      let result = unsafe passphrase.withBytes { bytes in
        unsafe salt.withUnsafeBytes { salt in
          unsafe gcry_kdf_derive(
            bytes.baseAddress, bytes.count, CInt(bitPattern: GCRY_KDF_PBKDF2.rawValue), hash.gcryptNumber,
            salt.baseAddress, salt.count, CUnsignedLong(iterations), target.count, target.baseAddress)
        }
      }
      try Gcrypt.require(result, "Cannot derive a key")
    }
  }

  /// How many iterations take `milliseconds` of a processor here, at least 1000.
  static func iterations(
    taking milliseconds: UInt64, hash: HashAlgorithm, byteCount: Int
  ) throws(EngineError) -> UInt32 {
    let sample = try Gcrypt.randomSecret(count: 16)
    let salt = try Gcrypt.randomBytes(count: 32)
    var count: UInt32 = 2048
    var nanoseconds: UInt64 = 0
    // Long enough for the clock, and nothing beside what is usually asked for.
    while nanoseconds < 10_000_000 && count < 1 << 28 {
      count *= 2
      let start = processorNanoseconds()
      _ = try key(from: sample, salt: salt, iterations: count, hash: hash, byteCount: byteCount)
      nanoseconds = processorNanoseconds() - start
    }
    let perSecond = Double(count) / Double(max(nanoseconds, 1)) * 1e9
    let wanted = perSecond * Double(milliseconds) / 1000
    guard wanted <= Double(maximumIterations) else {
      throw .invalid("PBKDF iterations \(UInt64(min(wanted, 1e18))) larger than \(maximumIterations)")
    }
    return max(minimumIterations, UInt32(wanted))
  }

  /// What LUKS demands at least.
  static let minimumIterations: UInt32 = 1000
  /// Most for one key: a minute for today's processors, where qemu-img's default takes two seconds. A header
  /// that asks for more would keep whoever opens it busy for hours.
  static let maximumIterations: UInt32 = 1 << 27

  private static func processorNanoseconds() -> UInt64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}
