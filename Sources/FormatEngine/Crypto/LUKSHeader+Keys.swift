/// Opening, adding and erasing key slots.
extension LUKSHeader {
  /// The volume key, by a passphrase that any slot takes.
  func volumeKey(for passphrase: Secret, in area: LUKSArea) throws(EngineError) -> Secret {
    for index in slots.indices {
      if let key = try volumeKey(inSlot: index, for: passphrase, area) { return key }
    }
    throw EngineError(.wrongKey, "Invalid password, cannot unlock any keyslot")
  }

  /// The volume key as the slot holds it; nil where the slot is not in use or the passphrase is another one.
  func volumeKey(inSlot index: Int, for passphrase: Secret, _ area: LUKSArea) throws(EngineError) -> Secret? {
    let slot = slots[index]
    guard slot.isActive else { return nil }
    let slotKey = try KeyDerivation.key(
      from: passphrase, salt: slot.salt, iterations: slot.iterations, hash: hash,
      byteCount: suite.keyByteCount)
    let cipher = try SectorCipher(suite, key: slotKey)
    let material = unsafe try Secret(count: materialBufferByteCount) { (bytes) throws(EngineError) in
      unsafe try area.read(into: bytes, at: materialOffset(of: slot))
      unsafe try cipher.decrypt(bytes, firstSector: 0)
    }
    let key = unsafe try material.withBytes { (bytes) throws(EngineError) in
      unsafe try AntiForensicSplitter.merge(
        UnsafeRawBufferPointer(rebasing: bytes[0..<materialByteCount]), byteCount: suite.keyByteCount,
        hash: hash)
    }
    return try digest(of: key) == keyDigest ? key : nil
  }

  /// Puts the key under a passphrase into a slot, whatever is there, and writes the slot to disk: first the key
  /// material, then the slot that points to it.
  mutating func setSlot(
    _ index: Int, to key: Secret, for passphrase: Secret, milliseconds: UInt64, in area: LUKSArea
  ) throws(EngineError) {
    var slot = slots[index]
    slot.isActive = true
    slot.salt = try Gcrypt.randomBytes(count: Self.saltByteCount)
    slot.iterations = try KeyDerivation.iterations(
      taking: milliseconds, hash: hash, byteCount: suite.keyByteCount)
    let slotKey = try KeyDerivation.key(
      from: passphrase, salt: slot.salt, iterations: slot.iterations, hash: hash,
      byteCount: suite.keyByteCount)
    let cipher = try SectorCipher(suite, key: slotKey)
    let material = unsafe try Secret(count: materialBufferByteCount) { (bytes) throws(EngineError) in
      unsafe try AntiForensicSplitter.split(
        key, into: UnsafeMutableRawBufferPointer(rebasing: bytes[0..<materialByteCount]), hash: hash)
      unsafe try cipher.encrypt(UnsafeRawBufferPointer(bytes), into: bytes, firstSector: 0)
    }
    unsafe try material.withBytes { (bytes) throws(EngineError) in
      unsafe try area.write(bytes, at: materialOffset(of: slot))
    }
    try area.store.flush()
    try write(slot, at: index, in: area)
  }

  /// Destroys what a slot holds. The slot goes first: what points to damaged key material would look like a
  /// wrong passphrase. Where nothing of the material could be overwritten the slot is in use again: who asks for it once
  /// more is not to hear that it is erased already.
  mutating func eraseSlot(_ index: Int, in area: LUKSArea) throws(EngineError) {
    let old = slots[index]
    var slot = old
    slot.isActive = false
    slot.iterations = 0
    slot.salt = [UInt8](repeating: 0, count: Self.saltByteCount)
    let material = try materialBytes(of: old, in: area)
    try write(slot, at: index, in: area)
    do throws(EngineError) {
      let garbage = try Gcrypt.randomBytes(count: materialBufferByteCount)
      try area.write(bytes: garbage, at: materialOffset(of: slot))
      try area.store.flush()
    } catch {
      if (try? materialBytes(of: old, in: area)) == material { try? write(old, at: index, in: area) }
      throw error
    }
  }

  /// The encrypted key material.
  private func materialBytes(of slot: KeySlot, in area: LUKSArea) throws(EngineError) -> [UInt8] {
    unsafe try [UInt8](count: materialBufferByteCount) { (buffer) throws(EngineError) in
      unsafe try area.read(into: buffer, at: materialOffset(of: slot))
    }
  }

  private mutating func write(_ slot: KeySlot, at index: Int, in area: LUKSArea) throws(EngineError) {
    try area.write(bytes: Self.serialised(slot), at: UInt64(Self.slotOffset(index)))
    try area.store.flush()
    slots[index] = slot
  }

  private func digest(of key: Secret) throws(EngineError) -> [UInt8] {
    try Self.digest(of: key, salt: keyDigestSalt, iterations: keyDigestIterations, hash)
  }

  static func digest(of key: Secret, salt: [UInt8], iterations: UInt32, _ hash: HashAlgorithm)
    throws(EngineError) -> [UInt8]
  {
    let digest = try KeyDerivation.key(
      from: key, salt: salt, iterations: iterations, hash: hash, byteCount: digestByteCount)
    return unsafe digest.withBytes { unsafe Array($0) }
  }

  /// Key material is encrypted by whole sectors; what fills up the last one is not part of it.
  private var materialBufferByteCount: Int {
    Int(UInt64(materialByteCount).aligned(upTo: Self.sectorByteCount))
  }

  private func materialOffset(of slot: KeySlot) -> UInt64 {
    UInt64(slot.materialSector) * Self.sectorByteCount
  }
}
