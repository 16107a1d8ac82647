/// Spreads a key over many stripes, all of which are needed to get it back: who destroys any part of them has
/// destroyed the key (LUKS on-disk format, "Anti-forensic splitting"). The bytes of the stripes lie one behind
/// the other.
enum AntiForensicSplitter {
  /// Fills `stripes`, a whole number of keys long.
  static func split(_ key: Secret, into stripes: UnsafeMutableRawBufferPointer, hash: HashAlgorithm)
    throws(EngineError)
  {
    let last = stripes.count - key.count
    unsafe try Gcrypt.fillWithRandomBytes(UnsafeMutableRawBufferPointer(rebasing: stripes[0..<last]))
    let mixed = unsafe try mix(UnsafeRawBufferPointer(stripes), key.count, hash)
    unsafe mixed.withBytes { mixed in
      unsafe key.withBytes { key in
        // SAFETY: `mixed` is as long as the key, and the last stripe is, too.
        for index in 0..<key.count { unsafe stripes[last + index] = mixed[index] ^ key[index] }
      }
    }
  }

  /// The key of `byteCount` bytes that was split into `stripes`.
  static func merge(_ stripes: UnsafeRawBufferPointer, byteCount: Int, hash: HashAlgorithm)
    throws(EngineError) -> Secret
  {
    let mixed = unsafe try mix(stripes, byteCount, hash)
    let last = stripes.count - byteCount
    return unsafe Secret(count: byteCount) { key in
      unsafe mixed.withBytes { mixed in
        // SAFETY: as above.
        for index in 0..<byteCount { unsafe key[index] = mixed[index] ^ stripes[last + index] }
      }
    }
  }

  /// What all stripes but the last come to.
  private static func mix(_ stripes: UnsafeRawBufferPointer, _ byteCount: Int, _ hash: HashAlgorithm)
    throws(EngineError) -> Secret
  {
    // A block of the hash with its number before it, and the digest behind them.
    let scratchCount = 4 + 2 * hash.digestByteCount
    var failure: EngineError?
    let mixed = unsafe Secret(count: byteCount) { mixed in
      _ = unsafe Secret(count: scratchCount) { scratch in
        do throws(EngineError) {
          for start in stride(from: 0, to: stripes.count - byteCount, by: byteCount) {
            for index in 0..<byteCount { unsafe mixed[index] ^= stripes[start + index] }
            unsafe try diffuse(mixed, hash, scratch)
          }
        } catch { failure = error }
      }
    }
    if let failure { throw failure }
    return mixed
  }

  /// Replaces every block, as long as a digest, by the digest of its number and its bytes.
  private static func diffuse(
    _ bytes: UnsafeMutableRawBufferPointer, _ hash: HashAlgorithm, _ scratch: UnsafeMutableRawBufferPointer
  ) throws(EngineError) {
    let size = hash.digestByteCount
    var number: UInt32 = 0
    for start in stride(from: 0, to: bytes.count, by: size) {
      let count = min(size, bytes.count - start)
      let block = unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[start..<start + count])
      let digest = unsafe UnsafeMutableRawBufferPointer(rebasing: scratch[(4 + size)...])
      unsafe scratch.storeBytes(of: number.bigEndian, as: UInt32.self)
      unsafe UnsafeMutableRawBufferPointer(rebasing: scratch[4...]).copyMemory(
        from: UnsafeRawBufferPointer(block))
      unsafe try hash.digest(UnsafeRawBufferPointer(rebasing: scratch[0..<4 + count]), into: digest)
      unsafe block.copyMemory(from: UnsafeRawBufferPointer(rebasing: digest[0..<count]))
      number += 1
    }
  }
}
