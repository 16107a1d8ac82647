import TestSupport
import Testing

@testable import FormatEngine

/// Key slots of a volume, and headers in files of their own. What `amend` says to wrong options is tested with
/// qcow2 (`LUKSSlotTests`), whose code is the same.
@Suite struct LUKSSlotAndHeaderTests {
  @Test func slotsAreAddedAndErased() throws {
    let image = try LUKSImage()
    let content = try image.open().readAll()
    #expect(try image.amend(LUKSImage.adding("four", ["keyslot": "4"])) == nil)
    #expect(try image.amend(LUKSImage.adding("first free")) == nil)
    #expect(try image.activeSlots() == [0, 1, 4])
    #expect(
      try image.amend(LUKSImage.adding("other", ["keyslot": "4"]))
        == "Refusing to overwrite active keyslot 4 - please erase it first")
    for passphrase in [LUKSImage.passphrase, "four", "first free"] {
      #expect(try image.open(passphrase: passphrase).readAll() == content)
    }
    #expect(try image.amend(with: "four", ["state": "inactive", "keyslot": "1"]) == nil)
    #expect(try image.amend(with: "four", ["state": "inactive", "old-secret": LUKSImage.passphrase]) == nil)
    #expect(try image.activeSlots() == [4])
    #expect(image.failure() == "Invalid password, cannot unlock any keyslot")
    #expect(
      try image.amend(with: "four", ["state": "inactive", "keyslot": "4"])
        == "Attempt to erase the only active keyslot 4 which will erase all the data in the image irreversibly"
        + " - refusing operation")
    #expect(try image.open(passphrase: "four").readAll() == content)
    #expect(try image.amend(with: "four", force: true, ["state": "inactive", "keyslot": "4"]) == nil)
    #expect(try image.activeSlots().isEmpty)
  }

  @Test func judgeOpensSlotsThatWeAddedAndWeThoseOfTheJudge() throws {
    let image = try LUKSImage()
    let content = try image.open().readAll()
    #expect(try image.amend(LUKSImage.adding("ours")) == nil)
    try TemporaryFolder.with { folder in
      let path = try folder.write(image.store.snapshot, to: "image")
      #expect(
        try ReferenceTool.content(of: path, format: "luks", in: folder, passphrase: "ours") == content)
      var result: ProcessResult
      var attempts = 0
      repeat {
        result = try ReferenceTool.qemuImg.run([
          "amend", "--object", "secret,id=a,data=ours", "--object", "secret,id=b,data=judge's", "-o",
          "state=active,new-secret=b,iter-time=10", "--image-opts",
          "driver=luks,key-secret=a,file.filename=\(path)",
        ])
        attempts += 1
        // Its clock fails now and then.
      } while attempts < 20 && result.stderrText.contains("accurate CPU usage")
      _ = try result.expecting(0)
      let after = LUKSImage(bytes: try Files.read(path))
      #expect(try after.activeSlots() == [0, 1, 2])
      #expect(try after.open(passphrase: "judge's").readAll() == content)
    }
  }

  @Test func headerMayLieInAFileOfItsOwn() throws {
    let header = try LUKSImage(["detached-header": "on"])
    #expect(header.store.snapshot.count == LUKSImage.payloadOffset)
    #expect(header.failure() == "LUKS payload is overlapping with the header")
    let payload = LUKSImage(bytes: [UInt8](repeating: 0, count: 100_000))
    let bytes = [UInt8](repeating: 9, count: 70_000)
    do {
      let chain = try payload.open(.readWrite, header: header)
      #expect(chain.virtualSize == 100_352)
      try chain.writeBytes(bytes, at: 20_000)
      try chain.resize(to: 200_000)
      #expect(payload.store.snapshot.count == 200_192)
      try chain.close()
    }
    #expect(header.store.snapshot == (try LUKSImage(["detached-header": "on"])).store.snapshot)
    #expect(try payload.open(header: header).readBytes(at: 20_000, count: bytes.count) == bytes)
    #expect(payload.failure() == "Volume is not in LUKS format")
    #expect(payload.failure(header: payload) == "Volume is not in LUKS format")
    // Slots are changed in the header, wherever that lies.
    let before = payload.store.snapshot
    #expect(try payload.amend(header: header, LUKSImage.adding("second")) == nil)
    #expect(payload.store.snapshot == before)
    #expect(payload.failure(passphrase: "second", header: header) == nil)
    let described = try #require(try payload.inspect(header: header).top as? LUKSLayer)
    #expect(described.extraFiles.map(\.role) == ["header"])
    #expect(described.formatSpecificInfo?.contains(InfoField("detached-header", .flag(true))) == true)
    #expect(described.formatSpecificInfo?.contains(InfoField("payload-offset", .integer(0))) == true)
  }

  /// The judge knows no detached headers, but a volume is a header with a payload behind it.
  @Test func headerAndPayloadPutTogetherAreAVolume() throws {
    let header = try LUKSImage(["detached-header": "on"])
    let payload = LUKSImage(bytes: [UInt8](repeating: 0, count: 64 << 10))
    let chain = try payload.open(.readWrite, header: header)
    try chain.writeBytes([UInt8](repeating: 5, count: 40_000), at: 0)
    try chain.close()
    let content = try chain.readAll()
    let whole = header.with(UInt32(LUKSImage.payloadOffset / 512), at: 104).store.snapshot
    try TemporaryFolder.with { folder in
      let path = try folder.write(whole + payload.store.snapshot, to: "image")
      #expect(
        try ReferenceTool.content(of: path, format: "luks", in: folder, passphrase: LUKSImage.passphrase)
          == content)
    }
    // A header that says where in its file the payload begins, as other programs make them.
    let shifted = LUKSImage(bytes: [UInt8](repeating: 1, count: 1024) + payload.store.snapshot)
    #expect(try shifted.open(header: header.with(2, at: 104)).readAll() == content)
    // A whole volume serves as the header of another file.
    let volume = try LUKSImage()
    let disk = try volume.open().readAll()
    #expect(try volume.open(header: volume).readAll() == disk)
  }
}
