import TestSupport
import Testing

@testable import FormatEngine

@Suite struct KeyDerivationTests {
  /// RFC 6070.
  @Test(
    arguments: [
      (1, "0c60c80f961f0e71f3a9b524af6012062fe037a6"), (2, "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957"),
      (4096, "4b007901b765489abead49d926f721d065a429c1"),
    ] as [(UInt32, Substring)])
  func keyIsThatOfTheStandard(_ iterations: UInt32, _ digits: Substring) throws {
    let key = try KeyDerivation.key(
      from: Secret(text: "password"), salt: Array("salt".utf8), iterations: iterations, hash: .sha1,
      byteCount: 20)
    let text = unsafe key.withBytes { bytes in
      unsafe bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
    #expect(text == digits)
  }

  @Test func moreTimeIsMoreIterations() throws {
    let little = try KeyDerivation.iterations(taking: 100, hash: .sha256, byteCount: 32)
    let much = try KeyDerivation.iterations(taking: 1000, hash: .sha256, byteCount: 32)
    #expect(much > 3 * little)
    #expect(try KeyDerivation.iterations(taking: 0, hash: .sha256, byteCount: 32) == 1000)
    #expect(throws: EngineError.self) {
      try KeyDerivation.iterations(taking: UInt64.max, hash: .sha256, byteCount: 32)
    }
  }

  @Test(arguments: HashAlgorithm.allCases) func splitKeyComesBackWhole(_ hash: HashAlgorithm) throws {
    for count in [16, 24, 64] {
      let key = try Gcrypt.randomSecret(count: count)
      let stripes = AlignedBuffer(byteCount: count * 20)
      unsafe try AntiForensicSplitter.split(key, into: stripes.bytes, hash: hash)
      func merged() throws -> [UInt8] {
        let key = unsafe try AntiForensicSplitter.merge(
          UnsafeRawBufferPointer(stripes.bytes), byteCount: count, hash: hash)
        return unsafe key.withBytes { unsafe Array($0) }
      }
      let original = unsafe key.withBytes { unsafe Array($0) }
      #expect(try merged() == original)
      unsafe stripes.bytes[7 * count + 3] ^= 1
      #expect(try merged() != original)
    }
  }
}
