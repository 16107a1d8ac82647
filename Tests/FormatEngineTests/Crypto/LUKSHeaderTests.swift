import TestSupport
import Testing

@testable import FormatEngine

/// Headers that are damaged or made to do harm: an error each, and soon. The words are the judge's where it
/// has some.
@Suite struct LUKSHeaderTests {
  private static func text(_ string: String, count: Int = 32) -> [UInt8] {
    Array(string.utf8) + [UInt8](repeating: 0, count: count - string.utf8.count)
  }

  struct Damage: Sendable, CustomTestStringConvertible {
    var what: String
    var offset: Int
    var bytes: [UInt8]
    var words: String
    var testDescription: String { what }

    init(_ what: String, _ offset: Int, _ bytes: [UInt8], _ words: String) {
      (self.what, self.offset, self.bytes, self.words) = (what, offset, bytes, words)
    }

    init(_ what: String, _ offset: Int, _ number: UInt32, _ words: String) {
      var bytes: [UInt8] = []
      bytes.append(bigEndian: number)
      self.init(what, offset, bytes, words)
    }
  }

  private static let unended = [UInt8](repeating: 0x61, count: 32)

  static let damages: [Damage] = [
    .init("magic", 0, [0x58], "Volume is not in LUKS format"),
    .init("version", 6, [0, 2], "LUKS version 2 is not supported"),
    .init("endless cipher", 8, unended, "LUKS header cipher name is not NUL terminated"),
    .init("endless mode", 40, unended, "LUKS header cipher mode is not NUL terminated"),
    .init("endless hash", 72, unended, "LUKS header hash spec is not NUL terminated"),
    .init("cipher", 8, text("foo"), "Algorithm 'foo' with key size 32 bytes not supported"),
    .init("mode without IV", 40, text("foo"), "Unexpected cipher mode string format 'foo'"),
    .init("IV", 40, text("xts-foo"), "IV generator 'foo' not supported"),
    .init("mode", 40, text("foo-plain"), "Cipher mode 'foo' not supported"),
    .init("ESSIV without hash", 40, text("xts-essiv"), "Missing IV generator hash specification"),
    .init("ESSIV with unknown hash", 40, text("xts-essiv:foo"), "Hash algorithm 'foo' not supported"),
    .init("ESSIV with odd hash", 40, text("xts-essiv:sha1"), "No AES cipher with key size 20 available"),
    .init("hash", 72, text("foo"), "Hash algorithm 'foo' not supported"),
    .init("no payload", 104, 0, "LUKS payload is overlapping with the header"),
    .init("payload over header", 104, 1, "LUKS payload is overlapping with the header"),
    .init("payload over keys", 104, 100, "Keyslot 0 is overlapping with the encrypted payload"),
    .init("no key", 108, 0, "Algorithm 'aes' with key size 0 bytes not supported"),
    .init("odd key", 108, 33, "Algorithm 'aes' with key size 16 bytes not supported"),
    .init("huge key", 108, .max, "Algorithm 'aes' with key size 2147483647 bytes not supported"),
    .init("no iterations", 164, 0, "LUKS key iteration count is zero"),
    .init("iterations for hours", 164, 1 << 31, "LUKS key iteration count 2147483648 is too large"),
    .init("state", 208, 5, "Keyslot 0 state (active/disable) is corrupted"),
    .init("state of the last", 544, 5, "Keyslot 7 state (active/disable) is corrupted"),
    .init("slot without iterations", 212, 0, "Keyslot 0 iteration count is zero"),
    .init("slot with iterations for hours", 212, .max, "Keyslot 0 iteration count 4294967295 is too large"),
    .init("key over header", 248, 0, "Keyslot 0 is overlapping with the LUKS header"),
    .init("key over header's end", 248, 1, "Keyslot 0 is overlapping with the LUKS header"),
    .init("keys overlap", 248, 600, "Keyslots 0 and 1 are overlapping in the header"),
    .init("key over payload", 248, 4000, "Keyslot 0 is overlapping with the encrypted payload"),
    .init("key far away", 248, .max, "Keyslot 0 is overlapping with the encrypted payload"),
    .init("no stripes", 252, 0, "Keyslot 0 is corrupted (stripes 0 != 4000)"),
    .init("one stripe less", 396, 3999, "Keyslot 3 is corrupted (stripes 3999 != 4000)"),
    .init("stripes without end", 252, .max, "Keyslot 0 is corrupted (stripes 4294967295 != 4000)"),
  ]

  @Test(arguments: damages) func damageIsNamed(_ damage: Damage) throws {
    let image = try EncryptedImage().with(damage.bytes, at: EncryptedImage.headerOffset + damage.offset)
    try Deadline.within(seconds: 5, damage.what) {
      let words = try #require(image.failure())
      #expect(words.hasPrefix(damage.words), "\(words)")
      // Whoever only looks is not told anything else.
      #expect(throws: EngineError.self) { try image.inspect() }
    }
  }

  @Test func eightSlotsWithAnotherPassphraseAreAllTried() throws {
    var image = try EncryptedImage()
    for index in 1..<8 {
      image = image.with(UInt32(0x00ac_71f3), inHeaderAt: 208 + 48 * index)
        .with(UInt32(1000), inHeaderAt: 212 + 48 * index)
    }
    Deadline.within(seconds: 20, "eight slots") {
      #expect(image.failure(passphrase: "wrong") == "Invalid password, cannot unlock any keyslot")
      #expect(image.failure() == nil)
    }
  }

  @Test func keyMaterialPastTheHeadersEndIsRefused() throws {
    // The payload may begin anywhere, but key material lies in the clusters of the header.
    let image = try EncryptedImage().with(UInt32.max, inHeaderAt: 104).with(UInt32(1 << 20), inHeaderAt: 248)
    #expect(image.failure() == "Request for data outside of extension header")
  }

  @Test func anyDamagedBytesGiveErrorsOnly() throws {
    var random = SeededRandom.fromEnvironment(or: 61)
    let good = try EncryptedImage()
    for _ in 0..<Effort.rounds(60) {
      var image = good
      for _ in 0...random.below(3) {
        let place = random.oneIn(4) ? random.below(144) : EncryptedImage.headerOffset + random.below(592)
        image = image.with([UInt8(random.below(256))], at: place)
      }
      // An iteration count of 2^27 is allowed, and takes its time.
      let iterations = image.store.snapshot[EncryptedImage.headerOffset + 212] & 0x0f
      if iterations > 0 || image.store.snapshot[EncryptedImage.headerOffset + 164] > 0 { continue }
      Deadline.within(seconds: 20, "\(random)") {
        if let chain = try? image.open() { _ = try? chain.readBytes(at: 0, count: 4096) }
        _ = try? image.inspect()
      }
    }
  }

  @Test func headerComesBackAsItWasWritten() throws {
    var suite = CipherSuite(algorithm: .serpent256, mode: .cbc, ivGenerator: .essiv)
    suite.ivHash = .sha256
    let slots = (0..<8).map { LUKSHeader.KeySlot(materialSector: UInt32(8 + 256 * $0)) }
    let header = LUKSHeader(
      suite: suite, hash: .sha512, payloadSector: 8 + 8 * 256, keyDigest: [UInt8](repeating: 1, count: 20),
      keyDigestSalt: [UInt8](repeating: 2, count: 32), keyDigestIterations: 1234,
      uuid: "01234567-89ab-4cde-8f01-23456789abcd", slots: slots)
    let bytes = header.serialised()
    #expect(bytes.count == 592)
    #expect(try bytes.parsed { (span) throws(EngineError) in try LUKSHeader.parse(span) } == header)
  }

  /// The pointer to the header, in qcow2's own words.
  @Test func damagedPointerIsNamed() throws {
    let image = try EncryptedImage()
    let bytes = Qcow2Bytes(bytes: image.store.snapshot)
    let place = try #require(bytes.headerExtension(0x0537_be77)).offset
    func failure(_ value: UInt64, at offset: Int, width: Int = 8) -> String? {
      EncryptedImage(bytes: bytes.with(value, at: offset, width: width).bytes).failure()
    }
    #expect(
      failure(0x40200, at: place)
        == "Encryption header offset '262656' is not a multiple of cluster size '65536'")
    #expect(failure(1 << 40, at: place) == "Volume is not in LUKS format")
    #expect(failure(0, at: place) == "Volume is not in LUKS format")
    #expect(failure(UInt64.max << 16, at: place)?.isEmpty == false)
    #expect(failure(0, at: place + 8) == "Request for data outside of extension header")
    #expect(failure(591, at: place + 8) == "Request for data outside of extension header")
    #expect(failure(600, at: place + 8) == "Request for data outside of extension header")
    #expect(failure(UInt64.max, at: place + 8) == "LUKS header is out of range")
    #expect(failure(8, at: place - 4, width: 4) == "CRYPTO header extension size 8, but expected size 16")
    #expect(failure(0x1234_5678, at: place - 8, width: 4) == "Missing CRYPTO header for crypt method 2")
    for method in [0, 1] as [UInt64] {
      #expect(
        failure(method, at: 32, width: 4)
          == "CRYPTO header extension only expected with LUKS encryption method")
    }
  }
}
