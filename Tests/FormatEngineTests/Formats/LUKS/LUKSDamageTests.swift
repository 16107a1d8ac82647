import TestSupport
import Testing

@testable import FormatEngine

/// LUKS volumes that are damaged or made to do harm: an error each, and soon.
@Suite struct LUKSDamageTests {
  @Test(arguments: LUKSHeaderTests.damages) func damageIsNamed(_ damage: LUKSHeaderTests.Damage) throws {
    let image = try LUKSImage().with(damage.bytes, at: damage.offset)
    try Deadline.within(seconds: 5, damage.what) {
      let words = try #require(image.failure())
      #expect(words.hasPrefix(damage.words), "\(words)")
      // Whoever only looks is not told anything else.
      #expect(throws: EngineError.self) { try image.inspect() }
    }
  }

  /// Without a payload behind it, a header has fewer promises to keep.
  @Test(arguments: LUKSHeaderTests.damages)
  func damageOfDetachedHeaderIsNamed(_ damage: LUKSHeaderTests.Damage) throws {
    let header = try LUKSImage(["detached-header": "on"]).with(damage.bytes, at: damage.offset)
    let payload = LUKSImage(bytes: [UInt8](repeating: 3, count: 4096))
    let failure = Deadline.within(seconds: 5, damage.what) { payload.failure(header: header) }
    switch damage.what {
    case "no payload", "payload over header": #expect(failure == nil)
    case "payload over keys": #expect(failure?.hasPrefix("Could not refresh total sector count") == true)
    case "key over payload", "key far away":
      // It overlaps nothing, but what opens the volume is not there.
      let words = ["Invalid password, cannot unlock any keyslot", "Keyslots 0 and"]
      #expect(words.contains { failure?.hasPrefix($0) == true }, "\(failure ?? "it opens")")
    default: #expect(failure?.hasPrefix(damage.words) == true, "\(failure ?? "it opens")")
    }
  }

  @Test func eightSlotsWithAnotherPassphraseAreAllTried() throws {
    var image = try LUKSImage()
    for index in 1..<8 {
      image = image.with(0x00ac_71f3, at: 208 + 48 * index).with(1000, at: 212 + 48 * index)
    }
    Deadline.within(seconds: 20, "eight slots") {
      #expect(image.failure(passphrase: "wrong") == "Invalid password, cannot unlock any keyslot")
      #expect(image.failure() == nil)
    }
  }

  @Test func filesCutOffAnywhereAreReadOrRefused() throws {
    let image = try LUKSImage()
    let start = LUKSImage.payloadOffset
    for count in [0, 1, 6, 8, 207, 500, 591] { #expect(image.cut(to: count).failure()?.isEmpty == false) }
    #expect(image.cut(to: 0).failure() == "Volume is not in LUKS format")
    #expect(image.cut(to: 500).failure()?.hasPrefix("Keyslot ") == true)
    for count in [592, 4096, start / 2] {
      // The key material is not there, or the payload is not.
      #expect(image.cut(to: count).failure()?.isEmpty == false)
      #expect(throws: EngineError.self) { try image.cut(to: count).inspect() }
    }
    #expect(throws: EngineError.self) { try image.cut(to: start - 1).inspect() }
    for (more, size) in [(0, 0), (1, 512), (511, 512), (512, 512), (520, 1024)] as [(Int, UInt64)] {
      let chain = try image.cut(to: start + more).open()
      #expect(chain.virtualSize == size)
      #expect(try chain.readAll().count == Int(size))
    }
  }

  @Test func payloadFarPastTheEndIsRefused() throws {
    let image = try LUKSImage().with(UInt32.max, at: 104)
    #expect(image.failure()?.hasPrefix("Could not refresh total sector count") == true)
    #expect(throws: EngineError.self) { try image.inspect() }
  }

  @Test func anyDamagedBytesGiveErrorsOnly() throws {
    var random = SeededRandom.fromEnvironment(or: 82)
    let good = try LUKSImage(["cipher-alg": "aes-128", "cipher-mode": "cbc"])
    for _ in 0..<Effort.rounds(60) {
      var image = good
      for _ in 0...random.below(3) { image = image.with([UInt8(random.below(256))], at: random.below(592)) }
      let bytes = image.store.snapshot
      // An iteration count of 2^27 is allowed, and takes its time.
      let isSlow = (0..<8).contains { bytes[212 + 48 * $0] > 0 || bytes[213 + 48 * $0] > 15 }
      if isSlow || bytes[164] > 0 || bytes[165] > 15 { continue }
      Deadline.within(seconds: 20, "\(random)") {
        if let chain = try? image.open() { _ = try? chain.readBytes(at: 0, count: 4096) }
        _ = try? image.inspect().members[0].layer.extent(at: 0, limit: 1)
      }
    }
  }

  /// The power fails while a slot is added or erased: the other slot opens as before.
  @Test(arguments: [true, false]) func powerCutSparesTheOtherSlots(_ isAdding: Bool) throws {
    let image = try LUKSImage(["cipher-alg": "aes-128", "cipher-mode": "cbc"])
    #expect(try image.amend(LUKSImage.adding("second")) == nil)
    let store = CrashStore(image.store.snapshot)
    let chain = try ImageChain.over(
      store, format: LUKSFormat.self, access: .readWrite, passphrase: LUKSImage.passphrase)
    var values = OptionValues(LUKSFormat.amendOptions)
    let options = isAdding ? LUKSImage.adding("third") : ["state": "inactive", "keyslot": "1"]
    for (name, text) in options { try values.set(name, to: text) }
    var request = AmendRequest()
    request.secrets.add(Secret(text: "third"), id: "third")
    try chain.amend(values, request)
    var random = SeededRandom.fromEnvironment(or: 83)
    let cuts = stride(from: 0, through: store.eventCount, by: 1)
    store.forEachCrashState(cuts: cuts, random: &random, randomCount: 1) { state in
      let after = LUKSImage(bytes: state.bytes)
      #expect(after.failure() == nil, "\(state.story)")
      if state.cut == store.eventCount {
        #expect((after.failure(passphrase: isAdding ? "third" : "second") == nil) == isAdding)
      }
    }
  }
}
