/// The header of LUKS version 1 (LUKS on-disk format, "PHDR"). All integers are big-endian, offsets count
/// sectors of 512 bytes from the header's own start, texts end with a NUL.
///
///       0 -   5  magic                104 - 107  payload offset          164 - 167  its iterations
///       6 -   7  version              108 - 111  bytes of the volume key 168 - 207  UUID
///       8 -  39  cipher               112 - 131  digest of it            208 - 591  8 key slots of 48 bytes
///      40 -  71  mode                 132 - 163  salt of that digest
///      72 - 103  hash
///
/// A key slot:
///
///       0 -   3  state                  8 -  39  salt                     44 -  47  stripes
///       4 -   7  iterations            40 -  43  offset of key material
struct LUKSHeader: Equatable, Sendable {
  struct KeySlot: Equatable, Sendable {
    var isActive = false
    var iterations: UInt32 = 0
    var salt = [UInt8](repeating: 0, count: LUKSHeader.saltByteCount)
    var materialSector: UInt32
    var stripes = LUKSHeader.stripeCount
  }

  var suite: CipherSuite
  /// For the key derivation and for splitting keys.
  var hash: HashAlgorithm
  var payloadSector: UInt32
  var keyDigest: [UInt8]
  var keyDigestSalt: [UInt8]
  var keyDigestIterations: UInt32
  var uuid: String
  var slots: [KeySlot]

  static let magic: [UInt8] = [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe]
  static let byteCount = 592
  static let slotCount = 8
  static let slotByteCount = 48
  static let saltByteCount = 32
  static let digestByteCount = 20
  /// What everybody uses.
  static let stripeCount: UInt32 = 4000
  static let sectorByteCount: UInt64 = 512
  private static let textByteCount = 32
  private static let uuidByteCount = 40
  private static let activeMark: UInt32 = 0x00ac_71f3
  private static let inactiveMark: UInt32 = 0x0000_dead

  static func slotOffset(_ index: Int) -> Int { 208 + index * slotByteCount }

  /// Bytes of a slot's key material; on disk it takes whole sectors.
  var materialByteCount: Int { suite.keyByteCount * Int(Self.stripeCount) }
}

extension LUKSHeader {
  /// Whether `head` begins a volume of the version that is understood here.
  static func isFirstVersion(_ head: RawSpan) -> Bool {
    guard let start = try? head.bytes(in: 0..<6), let version = try? head.bigEndian(UInt16.self, at: 6) else {
      return false
    }
    return start == magic && version == 1
  }

  /// Reads and checks a header. Nothing of it has to be true but what `validate` says.
  static func parse(_ bytes: RawSpan, isDetached: Bool = false) throws(EngineError) -> LUKSHeader {
    guard try bytes.bytes(in: 0..<6) == magic else {
      throw EngineError(.notThisFormat, "Volume is not in LUKS format")
    }
    let version = try bytes.bigEndian(UInt16.self, at: 6)
    guard version == 1 else { throw .unsupported("LUKS version \(version) is not supported") }
    let family = try text(bytes, at: 8, "cipher name")
    let modeText = try text(bytes, at: 40, "cipher mode")
    let hashName = try text(bytes, at: 72, "hash spec")
    guard let hash = HashAlgorithm(rawValue: hashName) else {
      throw .unsupported("Hash algorithm '\(hashName)' not supported")
    }
    let keyByteCount = try bytes.bigEndian(UInt32.self, at: 108)
    let suite = try CipherSuite(family: family, modeText: modeText, keyByteCount: Int(keyByteCount))
    var slots: [KeySlot] = []
    for index in 0..<slotCount { slots.append(try slot(bytes, index)) }
    let uuid = try bytes.bytes(in: 168..<168 + uuidByteCount).prefix { $0 != 0 }
    let header = LUKSHeader(
      suite: suite, hash: hash, payloadSector: try bytes.bigEndian(UInt32.self, at: 104),
      keyDigest: try bytes.bytes(in: 112..<112 + digestByteCount),
      keyDigestSalt: try bytes.bytes(in: 132..<132 + saltByteCount),
      keyDigestIterations: try bytes.bigEndian(UInt32.self, at: 164),
      uuid: String(decoding: uuid, as: UTF8.self), slots: slots)
    try header.validate(isDetached: isDetached)
    return header
  }

  private static func text(_ bytes: RawSpan, at offset: Int, _ what: String) throws(EngineError) -> String {
    let field = try bytes.bytes(in: offset..<offset + textByteCount)
    guard let end = field.firstIndex(of: 0) else {
      throw .corrupt("LUKS header \(what) is not NUL terminated")
    }
    return String(decoding: field[..<end], as: UTF8.self)
  }

  private static func slot(_ bytes: RawSpan, _ index: Int) throws(EngineError) -> KeySlot {
    let start = slotOffset(index)
    let mark = try bytes.bigEndian(UInt32.self, at: start)
    guard mark == activeMark || mark == inactiveMark else {
      throw .corrupt("Keyslot \(index) state (active/disable) is corrupted")
    }
    return KeySlot(
      isActive: mark == activeMark, iterations: try bytes.bigEndian(UInt32.self, at: start + 4),
      salt: try bytes.bytes(in: start + 8..<start + 8 + saltByteCount),
      materialSector: try bytes.bigEndian(UInt32.self, at: start + 40),
      stripes: try bytes.bigEndian(UInt32.self, at: start + 44))
  }

  func serialised() -> [UInt8] {
    var bytes = Self.magic
    bytes.append(bigEndian: UInt16(1))
    for text in [suite.algorithm.family, suite.modeText, hash.rawValue] {
      bytes.append(contentsOf: Self.padded(text, to: Self.textByteCount))
    }
    bytes.append(bigEndian: payloadSector)
    bytes.append(bigEndian: UInt32(suite.keyByteCount))
    bytes.append(contentsOf: keyDigest)
    bytes.append(contentsOf: keyDigestSalt)
    bytes.append(bigEndian: keyDigestIterations)
    bytes.append(contentsOf: Self.padded(uuid, to: Self.uuidByteCount))
    for slot in slots { bytes.append(contentsOf: Self.serialised(slot)) }
    return bytes
  }

  static func serialised(_ slot: KeySlot) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(bigEndian: slot.isActive ? activeMark : inactiveMark)
    bytes.append(bigEndian: slot.iterations)
    bytes.append(contentsOf: slot.salt)
    bytes.append(bigEndian: slot.materialSector)
    bytes.append(bigEndian: slot.stripes)
    return bytes
  }

  private static func padded(_ text: String, to count: Int) -> [UInt8] {
    let bytes = Array(text.utf8.prefix(count - 1))
    return bytes + [UInt8](repeating: 0, count: count - bytes.count)
  }
}

extension LUKSHeader {
  /// Every number against its range and against the others. Behind a detached header there is no payload.
  func validate(isDetached: Bool) throws(EngineError) {
    guard keyDigestIterations > 0 else { throw .corrupt("LUKS key iteration count is zero") }
    try Self.requireBearable(keyDigestIterations, "LUKS key")
    let headerEnd = UInt64(Self.byteCount).dividedRoundingUp(by: Self.sectorByteCount)
    guard isDetached || UInt64(payloadSector) >= headerEnd else {
      throw .corrupt("LUKS payload is overlapping with the header")
    }
    for (index, slot) in slots.enumerated() {
      guard slot.stripes == Self.stripeCount else {
        throw .corrupt("Keyslot \(index) is corrupted (stripes \(slot.stripes) != \(Self.stripeCount))")
      }
      let place = materialSectors(of: slot)
      guard place.lowerBound >= headerEnd else {
        throw .corrupt("Keyslot \(index) is overlapping with the LUKS header")
      }
      if slot.isActive {
        guard slot.iterations > 0 else { throw .corrupt("Keyslot \(index) iteration count is zero") }
        try Self.requireBearable(slot.iterations, "Keyslot \(index)")
      }
      guard isDetached || place.upperBound <= UInt64(payloadSector) else {
        throw .corrupt("Keyslot \(index) is overlapping with the encrypted payload")
      }
      for (other, neighbour) in slots.enumerated() where other > index {
        guard !place.overlaps(materialSectors(of: neighbour)) else {
          throw .corrupt("Keyslots \(index) and \(other) are overlapping in the header")
        }
      }
    }
  }

  /// First byte behind all key material.
  var materialEnd: UInt64 {
    slots.reduce(UInt64(Self.byteCount)) {
      max($0, materialSectors(of: $1).upperBound * Self.sectorByteCount)
    }
  }

  /// Sectors from the header's start that a slot's key material takes.
  func materialSectors(of slot: KeySlot) -> Range<UInt64> {
    let first = UInt64(slot.materialSector)
    return first..<first + UInt64(materialByteCount).dividedRoundingUp(by: Self.sectorByteCount)
  }

  private static func requireBearable(_ iterations: UInt32, _ what: String) throws(EngineError) {
    guard iterations <= KeyDerivation.maximumIterations else {
      throw .unsupported(
        "\(what) iteration count \(iterations) is too large; at most \(KeyDerivation.maximumIterations) are done"
      )
    }
  }
}

/// The part of a store that holds a LUKS header and its key material: a qcow2 image's clusters for it, the
/// start of a LUKS volume.
struct LUKSArea: Sendable {
  let store: any ByteStore
  /// Where the header begins.
  let offset: UInt64
  let byteCount: UInt64

  /// `offset + byteCount` must be a place that a file can have.
  init(store: any ByteStore, offset: UInt64, byteCount: UInt64) throws(EngineError) {
    let end = try offset.adding(byteCount, orCorrupt: "LUKS header")
    guard end <= maximumFileOffset else { throw .corrupt("LUKS header is out of range", at: offset) }
    self.store = store
    self.offset = offset
    self.byteCount = byteCount
  }

  func readHeader(isDetached: Bool = false) throws(EngineError) -> LUKSHeader {
    let bytes = try store.bytes(at: try place(of: 0, LUKSHeader.byteCount), count: LUKSHeader.byteCount)
    return try bytes.parsed { (span) throws(EngineError) in
      try LUKSHeader.parse(span, isDetached: isDetached)
    }
  }

  func read(into buffer: UnsafeMutableRawBufferPointer, at position: UInt64) throws(EngineError) {
    unsafe try store.read(into: buffer, at: try place(of: position, buffer.count))
  }

  func write(_ bytes: UnsafeRawBufferPointer, at position: UInt64) throws(EngineError) {
    unsafe try store.write(bytes, at: try place(of: position, bytes.count))
  }

  func write(bytes: [UInt8], at position: UInt64) throws(EngineError) {
    try store.write(bytes: bytes, at: try place(of: position, bytes.count))
  }

  private func place(of position: UInt64, _ count: Int) throws(EngineError) -> UInt64 {
    guard position <= byteCount, UInt64(count) <= byteCount - position else {
      throw .corrupt("Request for data outside of extension header", at: offset)
    }
    return offset + position
  }
}
