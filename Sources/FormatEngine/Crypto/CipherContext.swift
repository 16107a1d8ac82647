internal import CGcrypt

/// Encrypts and decrypts sectors with one key. Belongs to one thread at a time.
@safe final class CipherContext: @unchecked Sendable {
  // @unchecked: ContextPool hands it to one thread at a time.
  private let suite: CipherSuite
  private let cipher: gcry_cipher_hd_t
  private let essiv: gcry_cipher_hd_t?
  /// One block.
  private let vector: UnsafeMutableRawBufferPointer

  init(_ suite: CipherSuite, key: Secret) throws(EngineError) {
    try Gcrypt.start()
    try suite.validate()
    self.suite = suite
    unsafe cipher = try Self.open(suite.algorithm, suite.mode, key)
    do throws(EngineError) {
      if let hash = suite.ivHash, let algorithm = try suite.essivAlgorithm() {
        unsafe essiv = try Self.open(algorithm, .ecb, try hash.digest(key))
      } else {
        unsafe essiv = nil
      }
    } catch {
      unsafe gcry_cipher_close(cipher)
      throw error
    }
    unsafe vector = .allocate(byteCount: suite.algorithm.blockByteCount, alignment: 16)
  }

  /// Closing wipes the keys, too.
  deinit {
    unsafe gcry_cipher_close(cipher)
    if let essiv = unsafe essiv { unsafe gcry_cipher_close(essiv) }
    unsafe vector.deallocate()
  }

  private static func open(_ algorithm: CipherAlgorithm, _ mode: CipherMode, _ key: Secret)
    throws(EngineError) -> gcry_cipher_hd_t
  {
    var handle: gcry_cipher_hd_t?
    let what = "Cannot use cipher \(algorithm.rawValue) in mode \(mode.rawValue)"
    try Gcrypt.require(
      unsafe gcry_cipher_open(&handle, algorithm.gcryptNumber, mode.gcryptNumber, 0), what)
    guard let opened = unsafe handle else { throw .unsupported(what) }
    do throws(EngineError) {
      unsafe try key.withBytes { (bytes) throws(EngineError) in
        try Gcrypt.require(unsafe gcry_cipher_setkey(opened, bytes.baseAddress, bytes.count), what)
      }
    } catch {
      unsafe gcry_cipher_close(opened)
      throw error
    }
    return unsafe opened
  }

  /// Encrypts whole sectors from `source` into `target`, which is as long and may be the same memory.
  func encrypt(
    _ source: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer, firstSector: UInt64
  ) throws(EngineError) {
    unsafe try forEachSector(target, firstSector) { (offset) throws(EngineError) in
      // SAFETY: both buffers hold a sector at `offset`.
      unsafe gcry_cipher_encrypt(
        cipher, target.baseAddress?.advanced(by: offset), Self.sectorByteCount,
        source.baseAddress?.advanced(by: offset), Self.sectorByteCount)
    }
  }

  /// Decrypts whole sectors where they are.
  func decrypt(_ bytes: UnsafeMutableRawBufferPointer, firstSector: UInt64) throws(EngineError) {
    unsafe try forEachSector(bytes, firstSector) { (offset) throws(EngineError) in
      // SAFETY: the buffer holds a sector at `offset`. Without a source the bytes are changed in place.
      unsafe gcry_cipher_decrypt(
        cipher, bytes.baseAddress?.advanced(by: offset), Self.sectorByteCount, nil, 0)
    }
  }

  private static let sectorByteCount = Int(SectorCipher.sectorByteCount)

  private func forEachSector(
    _ bytes: UnsafeMutableRawBufferPointer, _ firstSector: UInt64,
    _ body: (Int) throws(EngineError) -> gcry_error_t
  ) throws(EngineError) {
    precondition(bytes.count % Self.sectorByteCount == 0)
    var sector = firstSector
    for offset in stride(from: 0, to: bytes.count, by: Self.sectorByteCount) {
      try setVector(sector)
      try Gcrypt.require(try body(offset), "Sector \(sector)")
      sector &+= 1
    }
  }

  private func setVector(_ sector: UInt64) throws(EngineError) {
    guard suite.mode != .ecb else { return }
    unsafe vector.initializeMemory(as: UInt8.self, repeating: 0)
    // SAFETY: a block is at least 8 bytes long.
    let number = suite.ivGenerator == .plain ? sector & 0xffff_ffff : sector
    unsafe vector.storeBytes(of: number.littleEndian, as: UInt64.self)
    if let essiv = unsafe essiv {
      try Gcrypt.require(
        unsafe gcry_cipher_encrypt(essiv, vector.baseAddress, vector.count, nil, 0), "Sector \(sector)")
    }
    let result =
      if suite.mode == .ctr {
        unsafe gcry_cipher_setctr(cipher, vector.baseAddress, vector.count)
      } else {
        unsafe gcry_cipher_setiv(cipher, vector.baseAddress, vector.count)
      }
    try Gcrypt.require(result, "Sector \(sector)")
  }
}
