extension LayerCipher {
  /// The method of images before LUKS, which qcow and qcow2 share: AES-128-CBC by sectors of the disk, and the
  /// passphrase itself is the key - its first 16 bytes, or zeros behind it.
  init(legacyPassphrase passphrase: Secret) throws(EngineError) {
    let suite = CipherSuite(algorithm: .aes128, mode: .cbc, ivGenerator: .plain64)
    let key = unsafe Secret(count: suite.keyByteCount) { key in
      unsafe passphrase.withBytes { bytes in
        let count = min(bytes.count, key.count)
        unsafe key.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[0..<count]))
      }
    }
    self.init(try SectorCipher(suite, key: key), numbering: .guest)
  }
}
