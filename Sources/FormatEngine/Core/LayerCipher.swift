/// What encrypts the bytes that a layer stores, sector by sector.
public struct LayerCipher: Sendable {
  /// Which number a sector goes by: that of its place on the disk, or in the store.
  enum Numbering: Sendable {
    case guest
    case host
  }

  private let cipher: SectorCipher
  private let numbering: Numbering

  init(_ cipher: SectorCipher, numbering: Numbering) {
    self.cipher = cipher
    self.numbering = numbering
  }

  /// Reads and writes of less are widened to it.
  static let sectorByteCount = SectorCipher.sectorByteCount

  /// Decrypts whole sectors where they are. Both offsets are multiples of a sector.
  func decrypt(_ bytes: UnsafeMutableRawBufferPointer, guestOffset: UInt64, hostOffset: UInt64)
    throws(EngineError)
  {
    unsafe try cipher.decrypt(bytes, firstSector: number(guestOffset, hostOffset))
  }

  /// Encrypts whole sectors from `source` into `target`, which is as long and may be the same memory.
  func encrypt(
    _ source: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer, guestOffset: UInt64,
    hostOffset: UInt64
  ) throws(EngineError) {
    unsafe try cipher.encrypt(source, into: target, firstSector: number(guestOffset, hostOffset))
  }

  private func number(_ guestOffset: UInt64, _ hostOffset: UInt64) -> UInt64 {
    (numbering == .guest ? guestOffset : hostOffset) / Self.sectorByteCount
  }
}

extension ImageLayer {
  public var cipher: LayerCipher? { nil }
}

extension EngineError {
  /// Encrypted bytes are asked for and nobody gave the key.
  static func missingKey(option: String) -> EngineError {
    EngineError(.missingKey, "Parameter '\(option)' is required for cipher")
  }

  /// The same for a format that says so with options of its own, as qcow2 does.
  static let missingKey = missingKey(option: "encrypt.key-secret")
}
