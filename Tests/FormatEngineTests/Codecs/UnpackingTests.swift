import TestSupport
import Testing

@testable import FormatEngine

/// The codecs of packed images: what they unpack, and that damaged streams are errors.
@Suite struct UnpackingTests {
  enum Codec: String, CaseIterable, Sendable {
    case adc, bzip2, xz, zlib, lzfsePlain, lzfseLZVN, lzfsePacked, lzfsePlainTables

    /// A stream, and what it unpacks to.
    func sample() throws -> (packed: [UInt8], plain: [UInt8]) {
      var random = SeededRandom(seed: 5)
      let text = PackedSamples.text(8192)
      let mixed = text + random.bytes(5000) + [UInt8](repeating: 7, count: 3000) + text
      switch self {
      case .adc: return (PackedSamples.adc(mixed), mixed)
      case .bzip2: return (try PackedSamples.bzip2(mixed), mixed)
      case .xz: return (try PackedSamples.xz(mixed), mixed)
      case .zlib: return (try ZlibText.pack(mixed), mixed)
      case .lzfsePlain: return (try Base64.decode(LZFSEStreams.plain), Array(text.prefix(12)))
      case .lzfseLZVN: return (try Base64.decode(LZFSEStreams.lzvn), Array(text.prefix(1024)))
      case .lzfsePacked: return (try Base64.decode(LZFSEStreams.packed), text)
      case .lzfsePlainTables:
        let codes = try Base64.decode(LZFSEStreams.packed).dropFirst(LZFSEStreams.packedCodesOffset)
        return (try Base64.decode(LZFSEStreams.plainTablesHeader) + codes, text)
      }
    }

    func unpack(_ packed: [UInt8], count: Int) throws(EngineError) -> [UInt8] {
      let target = AlignedBuffer(byteCount: count)
      let room = unsafe target.prefix(count)
      var failure: EngineError?
      unsafe packed.withUnsafeBytes { source in
        do throws(EngineError) {
          switch self {
          case .adc: unsafe try ADC.unpack(source, into: room)
          case .bzip2: unsafe try Bzip2.unpack(source, into: room)
          case .xz: unsafe try XZ.unpack(source, into: room)
          case .zlib: unsafe try DeflateUnpacker(.zlib).unpack(source, into: room)
          default: unsafe try LZFSE.unpack(source, into: room)
          }
        } catch { failure = error }
      }
      if let failure { throw failure }
      return unsafe Array(room)
    }
  }

  @Test(arguments: Codec.allCases)
  func streamGivesItsBytes(_ codec: Codec) throws {
    let sample = try codec.sample()
    #expect(try codec.unpack(sample.packed, count: sample.plain.count) == sample.plain)
    #expect(try codec.unpack(sample.packed + [1, 2, 3], count: sample.plain.count) == sample.plain)
  }

  @Test(arguments: Codec.allCases)
  func anotherSizeIsAnError(_ codec: Codec) throws {
    let sample = try codec.sample()
    #expect(throws: EngineError.self) { try codec.unpack(sample.packed, count: sample.plain.count + 1) }
    // ADC has no end mark: what is asked for is what is unpacked, if a code ends there.
    if codec != .adc {
      #expect(throws: EngineError.self) { try codec.unpack(sample.packed, count: sample.plain.count - 1) }
    }
    #expect(throws: EngineError.self) { try codec.unpack([], count: 1) }
  }

  @Test(arguments: Codec.allCases)
  func streamsThatAreCutOffAreErrors(_ codec: Codec) throws {
    let sample = try codec.sample()
    for count in stride(from: 0, to: sample.packed.count, by: max(1, sample.packed.count / 200)) {
      #expect(throws: EngineError.self) {
        try codec.unpack(Array(sample.packed.prefix(count)), count: sample.plain.count)
      }
    }
  }

  /// Errors, or other bytes; never a trap, never more than there is room for.
  @Test(arguments: Codec.allCases)
  func damagedStreamsEnd(_ codec: Codec) throws {
    let sample = try codec.sample()
    var random = SeededRandom.fromEnvironment(or: 9)
    for round in 0..<Effort.rounds(codec.rawValue.hasPrefix("lzfse") || codec == .adc ? 3000 : 200) {
      var packed = sample.packed
      for _ in 0...random.below(4) {
        // The front, where headers are, as often as all the rest.
        let place = random.oneIn(2) ? random.below(min(64, packed.count)) : random.below(packed.count)
        packed[place] =
          random.oneIn(2) ? UInt8(random.below(256)) : packed[place] ^ (1 << UInt8(random.below(8)))
      }
      Deadline.within(seconds: 10, "\(codec), round \(round), \(random)") {
        _ = try? codec.unpack(packed, count: sample.plain.count)
      }
    }
  }

  @Test func aBombOfXZTakesNoMemory() throws {
    // A dictionary of 1.5 GiB is asked for by one byte.
    var packed = try PackedSamples.xz(PackedSamples.text(4096))
    // After the stream's header of 12 bytes the block's: size, flags, sizes; then LZMA2 with one byte for its dictionary.
    let headerEnd = 12 + (Int(packed[12]) + 1) * 4
    let filter = try #require((14..<headerEnd).first { packed[$0] == 0x21 && packed[$0 + 1] == 1 })
    packed[filter + 2] = 39
    let sum = PlainSums.crc32(Array(packed[12..<headerEnd - 4]))
    packed.replaceSubrange(headerEnd - 4..<headerEnd, with: littleEndian(sum))
    #expect(throws: EngineError.self) { try Codec.xz.unpack(packed, count: 4096) }
  }

  private func littleEndian(_ value: UInt32) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(littleEndian: value)
    return bytes
  }

  @Test func adcHasThreeCodes() throws {
    // "abc", then 5 from 3 back, then 4 from 1 back by the long code.
    let packed: [UInt8] = [0x82, 97, 98, 99, 0x08, 2, 0x40, 0, 0]
    #expect(try Codec.adc.unpack(packed, count: 12) == Array("abcabcabbbbb".utf8))
    #expect(throws: EngineError.self) { try Codec.adc.unpack([0x80, 97, 0x08, 1], count: 6) }
  }

  @Test(arguments: [
    ("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg", "foob"), (" Z m9\n\tvYmE=", "fooba"),
    ("Zm9vYmFy", "foobar"),
  ])
  func base64IsRead(_ text: String, _ plain: String) throws {
    #expect(try Base64.decode(text) == Array(plain.utf8))
  }

  @Test(arguments: ["Z", "Zm9v!", "Zg==Zg==", "Zg===", "Zé==", "<>"])
  func base64TrashIsAnError(_ text: String) {
    #expect(throws: EngineError.self) { try Base64.decode(text) }
  }

  @Test func sumsOfZerosAreThoseOfTheirBytes() {
    for count in [0, 1, 2, 511, 512, 513, 100_000] {
      var (one, other) = (CRC32(), CRC32())
      let start: [UInt8] = [1, 2, 3]
      unsafe start.withUnsafeBytes { unsafe one.append($0) }
      unsafe start.withUnsafeBytes { unsafe other.append($0) }
      one.append(zeros: UInt64(count))
      unsafe [UInt8](repeating: 0, count: count).withUnsafeBytes { unsafe other.append($0) }
      #expect(one == other)
      #expect(one.value == PlainSums.crc32(start + [UInt8](repeating: 0, count: count)))
    }
  }

  /// Symbols that take no bits are unpacked for nothing where the block has no bytes for them.
  @Test(arguments: [(literals: UInt32(4), repetitions: UInt32(0)), (0, 1), (40_000, 10_000)])
  func blocksHaveNoMoreCodesThanBytes(_ counts: (literals: UInt32, repetitions: UInt32)) {
    var packed: [UInt8] = Array("bvx-".utf8) + littleEndian(1) + [97] + Array("bvx1".utf8)
    for number in [0, 0, counts.literals, counts.repetitions, 0, 0, 0, 0, 0, 0] as [UInt32] {
      packed += littleEndian(number)
    }
    packed += [UInt8](repeating: 0, count: 6)
    // The first symbol of each kind is all that there is: no byte is copied or repeated.
    for (symbols, states) in [(20, 64), (20, 64), (64, 256), (256, 1024)] {
      packed += [UInt8(states & 255), UInt8(states >> 8)] + [UInt8](repeating: 0, count: 2 * (symbols - 1))
    }
    packed += [0, 0] + Array("bvx$".utf8)
    #expect(throws: EngineError.self) { try Codec.lzfsePacked.unpack(packed, count: 1) }
  }
}
