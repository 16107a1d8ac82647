internal import CGcrypt

/// libgcrypt, made ready once for all threads.
enum Gcrypt {
  private static let isReady = imgfs_gcrypt_start() != 0

  /// Before the first call of any other function of it.
  static func start() throws(EngineError) {
    guard isReady else { throw .unsupported("libgcrypt is older than 1.8") }
  }

  /// Throws unless `result`, what a function returned, says that all went well.
  static func require(_ result: gcry_error_t, _ what: @autoclosure () -> String) throws(EngineError) {
    guard result != 0 else { return }
    let words = unsafe gcry_strerror(result).map { unsafe String(hostBytes: $0) } ?? "error \(result)"
    throw .unsupported("\(what()): \(words)")
  }

  /// Fills `buffer` with random bytes that are good enough for keys.
  static func fillWithRandomBytes(_ buffer: UnsafeMutableRawBufferPointer) throws(EngineError) {
    try start()
    unsafe gcry_randomize(buffer.baseAddress, buffer.count, GCRY_STRONG_RANDOM)
  }

  static func randomBytes(count: Int) throws(EngineError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    try start()
    unsafe bytes.withUnsafeMutableBytes { unsafe gcry_randomize($0.baseAddress, count, GCRY_STRONG_RANDOM) }
    return bytes
  }

  static func randomSecret(count: Int) throws(EngineError) -> Secret {
    unsafe try Secret(count: count) { (bytes) throws(EngineError) in unsafe try fillWithRandomBytes(bytes) }
  }
}
