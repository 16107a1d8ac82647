/// Encrypts and decrypts sectors with one key, for any number of threads at once.
final class SectorCipher: Sendable {
  /// What is encrypted by itself: LUKS and qcow2 know no other size.
  static let sectorByteCount: UInt64 = 512

  private let contexts: ContextPool<CipherContext>

  /// `key`: as long as `suite` wants it.
  init(_ suite: CipherSuite, key: Secret) throws(EngineError) {
    guard key.count == suite.keyByteCount else {
      throw .corrupt("A key of \(key.count) bytes does not fit cipher \(suite.algorithm.rawValue)")
    }
    contexts = ContextPool { () throws(EngineError) in try CipherContext(suite, key: key) }
    // What does not work shows now, not at the first read.
    try contexts.with { (_) throws(EngineError) in }
  }

  /// Encrypts whole sectors from `source` into `target`, which is as long and may be the same memory.
  func encrypt(
    _ source: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer, firstSector: UInt64
  ) throws(EngineError) {
    precondition(source.count == target.count)
    try contexts.with { (context) throws(EngineError) in
      unsafe try context.encrypt(source, into: target, firstSector: firstSector)
    }
  }

  /// Decrypts whole sectors where they are.
  func decrypt(_ bytes: UnsafeMutableRawBufferPointer, firstSector: UInt64) throws(EngineError) {
    try contexts.with { (context) throws(EngineError) in
      unsafe try context.decrypt(bytes, firstSector: firstSector)
    }
  }
}
