import TestSupport
import Testing

@testable import FormatEngine

/// Each kind of bytes goes its own way, and comes back from all of them.
@Suite struct DeflatePackerTests {
  enum Content: String, CaseIterable, Sendable {
    case text, chance, chanceAgain, chanceOften, program, zeros, highByteAtTheEnd

    /// 64 KiB.
    var bytes: [UInt8] {
      var random = SeededRandom(seed: 9)
      switch self {
      case .text: return PackedSamples.text(65536)
      case .chance: return random.bytes(65536)
      case .chanceAgain:
        let part = random.bytes(24576)
        return part + part + part.prefix(16384)
      case .chanceOften:
        let part = random.bytes(8192)
        return Array((0..<8).map { _ in part }.joined())
      case .program: return (0..<65536).map { $0 % 3 == 0 ? 0x8b : random.oneIn(2) ? 0 : UInt8($0 % 251) }
      case .zeros: return [UInt8](repeating: 0, count: 65536)
      case .highByteAtTheEnd: return PackedSamples.text(65535) + [0x80]
      }
    }

    var profile: ByteProfile {
      switch self {
      case .text, .zeros: .sevenBit
      case .chance, .chanceAgain: .even
      case .chanceOften, .program, .highByteAtTheEnd: .mixed
      }
    }
  }

  private func pack(_ bytes: [UInt8], room: Int, _ packer: DeflatePacker) throws -> [UInt8]? {
    let target = AlignedBuffer(byteCount: room)
    let count = try unsafe bytes.withUnsafeBytes { unsafe try packer.pack($0, into: target.prefix(room)) }
    return count.map { unsafe Array(target.prefix($0)) }
  }

  private func unpack(_ packed: [UInt8], _ framing: DeflateFraming) throws -> [UInt8] {
    let target = AlignedBuffer(byteCount: 65536)
    try unsafe packed.withUnsafeBytes { unsafe try DeflateUnpacker(framing).unpack($0, into: target.bytes) }
    return unsafe Array(target.bytes)
  }

  @Test(arguments: Content.allCases) func profileTellsThemApart(_ content: Content) {
    let profile = unsafe content.bytes.withUnsafeBytes { unsafe ByteProfile($0) }
    #expect(profile == content.profile)
  }

  @Test(arguments: [0, 1, 63, 64, 255, 256, 257, 1000]) func oneHighByteIsSeenAnywhere(_ count: Int) {
    var bytes = [UInt8](repeating: 65, count: count)
    #expect(unsafe bytes.withUnsafeBytes { unsafe ByteProfile($0) } == .sevenBit)
    for index in bytes.indices {
      bytes[index] = 200
      #expect(unsafe bytes.withUnsafeBytes { unsafe ByteProfile($0) } == .mixed, "at \(index) of \(count)")
      bytes[index] = 65
    }
  }

  @Test(arguments: Content.allCases) func everyWayLeadsBack(_ content: Content) throws {
    for framing in [DeflateFraming.raw, .zlib] {
      for method in [DeflatePacker.TextMethod.isal, .libdeflate] {
        let packer = try DeflatePacker(framing, level: 2, text: method)
        // Twice by one packer: nothing is left of the first time.
        for _ in 0..<2 {
          let packed = try #require(try pack(content.bytes, room: 65536 + 200, packer))
          #expect(try unpack(packed, framing) == content.bytes)
          // What repeats after 24 KiB is not looked for where all values are as frequent.
          if content.profile == .even {
            #expect(packed.count > 65536)
          } else {
            #expect(packed.count < 50_000)
          }
        }
      }
    }
  }

  @Test func whatDoesNotGetSmallerIsTold() throws {
    let packer = try DeflatePacker(.raw, level: 2, text: .isal)
    #expect(try pack(Content.chance.bytes, room: 65535, packer) == nil)
    #expect(try pack(Content.text.bytes, room: 1000, packer) == nil)
    // The one after it is not disturbed.
    let packed = try #require(try pack(Content.text.bytes, room: 65535, packer))
    #expect(try unpack(packed, .raw) == Content.text.bytes)
  }
}
