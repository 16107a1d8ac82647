import Synchronization
import TestSupport
import Testing

@testable import FormatEngine

/// Adding and erasing key slots, in QEMU's words (iotests 293 and 295).
@Suite struct LUKSSlotTests {
  /// Amends an image with options that name secrets by their own text.
  private func amend(
    _ image: EncryptedImage, with passphrase: String = EncryptedImage.passphrase, force: Bool = false,
    _ options: [String: String]
  ) -> String? {
    do {
      let chain = try image.open(.readWrite, passphrase: passphrase)
      let layer = try #require(chain.top as? Qcow2Layer)
      var values = OptionValues(Qcow2Layer.amendOptions)
      var request = AmendRequest(isForced: force)
      for (name, text) in options {
        try values.set("encrypt." + name, to: text)
        if name.hasSuffix("secret") && text != "missing" { request.secrets.add(Secret(text: text), id: text) }
      }
      try layer.amendEncryption(values, request)
      return nil
    } catch let error as EngineError {
      return error.message
    } catch { return "\(error)" }
  }

  private func add(_ passphrase: String, _ more: [String: String] = [:]) -> [String: String] {
    more.merging(["state": "active", "new-secret": passphrase, "iter-time": "1"]) { given, _ in given }
  }

  private func activeSlots(_ image: EncryptedImage) throws -> [Int] {
    let layer = try #require(try image.inspect().top as? Qcow2Layer)
    let header = try #require(layer.encryption?.header.withLock { $0 })
    return header.slots.indices.filter { header.slots[$0].isActive }
  }

  @Test func slotsAreAddedAndErased() throws {
    let image = try EncryptedImage()
    let content = [UInt8](repeating: 0x5a, count: 70_000)
    let writing = try image.open(.readWrite)
    try writing.writeBytes(content, at: 1000)
    try writing.flush()
    #expect(amend(image, add("four", ["keyslot": "4"])) == nil)
    #expect(amend(image, add("first free")) == nil)
    #expect(try activeSlots(image) == [0, 1, 4])
    for passphrase in [EncryptedImage.passphrase, "four", "first free"] {
      #expect(try image.open(passphrase: passphrase).readBytes(at: 1000, count: content.count) == content)
    }
    #expect(amend(image, with: "four", ["state": "inactive", "keyslot": "1"]) == nil)
    #expect(
      amend(image, with: "four", ["state": "inactive", "old-secret": EncryptedImage.passphrase]) == nil)
    #expect(try activeSlots(image) == [4])
    #expect(image.failure() == "Invalid password, cannot unlock any keyslot")
    #expect(image.failure(passphrase: "first free") == "Invalid password, cannot unlock any keyslot")
    #expect(try image.open(passphrase: "four").readBytes(at: 1000, count: content.count) == content)
  }

  /// The judge opens with every passphrase that was added, and what it adds opens here.
  @Test func judgeOpensAddedSlots() throws {
    let image = try EncryptedImage()
    let writing = try image.open(.readWrite)
    try writing.writeBytes([UInt8](repeating: 0x5a, count: 4096), at: 0)
    try writing.flush()
    #expect(amend(image, add("second")) == nil)
    #expect(amend(image, ["state": "inactive", "keyslot": "0"]) == nil)
    try TemporaryFolder.with { folder in
      let path = try folder.write(image.store.snapshot, to: "image")
      try ReferenceTool.io(
        ["read -q -P 0x5a 0 4k"], on: path, format: "qcow2", folder: folder.path, passphrase: "second")
      let judge = try ReferenceTool.qemuImg.run([
        "amend", "--object", "secret,id=old,data=second", "--object", "secret,id=new,data=third",
        "--image-opts", "driver=qcow2,encrypt.key-secret=old,file.filename=\(path)", "-o",
        "encrypt.state=active,encrypt.new-secret=new,encrypt.keyslot=6,encrypt.iter-time=10",
      ])
      // Its clock fails now and then.
      try #require(try ReferenceTool.check(path, folder: folder.path, passphrase: "second").corruptions == 0)
      guard !judge.stderrText.contains("accurate CPU usage") else { return }
      #expect(judge.stderrText == "")
      let ours = EncryptedImage(bytes: try Files.read(path))
      #expect(try activeSlots(ours) == [1, 6])
      #expect(try ours.open(passphrase: "third").readBytes(at: 0, count: 4096).holdsOnly(0x5a))
    }
  }

  @Test func lastSlotStaysUnlessForced() throws {
    let image = try EncryptedImage()
    let own = EncryptedImage.passphrase
    #expect(
      amend(image, ["state": "inactive", "keyslot": "0"])
        == "Attempt to erase the only active keyslot 0 which will erase all the data in the image"
        + " irreversibly - refusing operation")
    #expect(
      amend(image, ["state": "inactive", "old-secret": own])
        == "All the active keyslots match the (old) password that was given and erasing them will erase all"
        + " the data in the image irreversibly - refusing operation")
    #expect(
      amend(image, add("other", ["keyslot": "0"]))
        == "Refusing to overwrite active keyslot 0 - please erase it first")
    #expect(try activeSlots(image) == [0] && image.failure() == nil)
    #expect(amend(image, force: true, add("other", ["keyslot": "0"])) == nil)
    #expect(image.failure() != nil && image.failure(passphrase: "other") == nil)
    #expect(amend(image, with: "other", force: true, ["state": "inactive", "keyslot": "0"]) == nil)
    #expect(try activeSlots(image).isEmpty)
    #expect(image.failure(passphrase: "other") == "Invalid password, cannot unlock any keyslot")
  }

  @Test func allSlotsMayBeInUse() throws {
    let image = try EncryptedImage()
    for _ in 1..<8 { #expect(amend(image, add("same")) == nil) }
    #expect(amend(image, add("one more")) == "Can't add a keyslot - all keyslots are in use")
    #expect(amend(image, ["state": "inactive", "old-secret": "same"]) == nil)
    #expect(try activeSlots(image) == [0])
  }

  /// A header that is put back does not bring an erased slot back: its key material is gone.
  @Test func erasedKeyMaterialIsGone() throws {
    let image = try EncryptedImage()
    #expect(amend(image, add("second")) == nil)
    let header = Array(image.store.snapshot[EncryptedImage.headerOffset..<EncryptedImage.headerOffset + 592])
    #expect(amend(image, ["state": "inactive", "keyslot": "1"]) == nil)
    let restored = image.with(header, at: EncryptedImage.headerOffset)
    #expect(try activeSlots(restored) == [0, 1])
    #expect(restored.failure(passphrase: "second") != nil && restored.failure() == nil)
  }

  /// The power fails while a slot is added or erased: the other slots open as before.
  @Test(arguments: [true, false]) func powerCutSparesTheOtherSlots(_ isAdding: Bool) throws {
    let image = try EncryptedImage()
    #expect(amend(image, add("second")) == nil)
    let store = CrashStore(image.store.snapshot)
    let chain = try ImageChain.over(
      store, format: Qcow2Format.self, access: .readWrite, passphrase: EncryptedImage.passphrase)
    var values = OptionValues(Qcow2Layer.amendOptions)
    let options = isAdding ? add("third") : ["state": "inactive", "keyslot": "1"]
    for (name, text) in options { try values.set("encrypt." + name, to: text) }
    var request = AmendRequest()
    request.secrets.add(Secret(text: "third"), id: "third")
    try chain.amend(values, request)
    var random = SeededRandom.fromEnvironment(or: 62)
    let cuts = stride(from: 0, through: store.eventCount, by: 1)
    store.forEachCrashState(cuts: cuts, random: &random, randomCount: 1) { state in
      let after = EncryptedImage(bytes: state.bytes)
      #expect(after.failure() == nil, "\(state.story)")
      if isAdding { #expect(after.failure(passphrase: "second") == nil, "\(state.story)") }
      if state.cut == store.eventCount {
        #expect((after.failure(passphrase: isAdding ? "third" : "second") == nil) == isAdding)
      }
    }
  }

  @Test func wrongOptionsAreNamed() throws {
    let image = try EncryptedImage()
    let cases: [([String: String], String)] = [
      (["state": "active"], "'new-secret' is required to activate a keyslot"),
      (
        ["state": "active", "new-secret": "a", "old-secret": "b"],
        "'old-secret' must not be given when activating keyslots"
      ),
      (["state": "active", "new-secret": "missing"], "No secret with id 'missing'"),
      (add("a", ["keyslot": "8"]), "Invalid keyslot 8 specified, must be between 0 and 7"),
      (
        ["state": "inactive"],
        "To erase keyslot(s), either explicit keyslot index or the password currently contained in them must"
          + " be given"
      ),
      (["state": "inactive", "new-secret": "a"], "'new-secret' must not be given when erasing keyslots"),
      (["state": "inactive", "iter-time": "10"], "'iter-time' must not be given when erasing keyslots"),
      (["state": "inactive", "keyslot": "3"], "Given keyslot 3 is already erased (inactive) "),
      (
        ["state": "inactive", "keyslot": "0", "old-secret": "a"],
        "Given keyslot 0 doesn't contain the given old password for erase operation"
      ),
      (
        ["state": "inactive", "old-secret": "a"], "No keyslots match given (old) password for erase operation"
      ),
      (["state": "foo"], "Parameter 'state' does not accept value 'foo'"),
      (["keyslot": "1"], "Parameter 'state' is missing"),
    ]
    let before = image.store.snapshot
    for (options, words) in cases { #expect(amend(image, options) == words) }
    #expect(image.store.snapshot == before)
    let aes = try EncryptedImage(["format": "aes"])
    #expect(amend(aes, add("a")) == "Only LUKS encryption options can be amended")
  }
}
