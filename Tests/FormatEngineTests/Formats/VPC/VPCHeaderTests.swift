import TestSupport
import Testing

@testable import FormatEngine

/// Sizes and geometries, beside those of the judge.
struct VPCHeaderTests {
  /// Sizes around every border of the rule for geometries.
  private static let sizes: [UInt64] = [
    1, 512, 17 * 512 * 4, 34_817, 1 << 20, 5_242_880, 17 * 1024 * 4 * 512, 17 * 1024 * 4 * 512 + 512,
    17 * 1024 * 16 * 512, 17 * 1024 * 16 * 512 + 1, 527_433_728, 528_482_304, 529_530_880,
    31 * 16 * 1024 * 512, 31 * 16 * 1024 * 512 + 512, 63 * 16 * 65535 * 512 - 512, 63 * 16 * 65535 * 512,
    136_363_130_880, 136_365_211_648, 136_899_993_088, 136_899_993_600, 136_899_994_112, 2_190_433_320_960,
  ]

  @Test(arguments: sizes, ["", "force_size=on"])
  func newFooterIsTheJudges(_ size: UInt64, _ option: String) throws {
    try TemporaryFolder.with { folder in
      try ReferenceTool.create(
        folder.file("judge"), format: "vpc", size: Int(size), options: option.isEmpty ? [] : [option])
      var values = OptionValues(VPCFormat.createOptions)
      if !option.isEmpty { values.set("force_size", to: .flag(true)) }
      let ours = MemoryStore([])
      try VPCFormat.create(
        on: ours,
        CreateRequest(
          path: "ours", virtualSize: size.aligned(upTo: 512), options: values, references: ReferenceOpener()))
      var pair = [ours.snapshot, try Files.read(folder.file("judge"))]
      for index in pair.indices {
        #expect(Array(pair[index].prefix(512)) == Array(pair[index].suffix(512)))
        for place in [0, pair[index].count - 512] {
          for byte in Array(24..<28) + Array(64..<84) { pair[index][place + byte] = 0 }
        }
      }
      #expect(pair[0] == pair[1])
    }
  }

  @Test func sizesBeyondTheLargestAreRefused() {
    let values = OptionValues(VPCFormat.createOptions)
    let request = CreateRequest(
      path: "x", virtualSize: 2_190_433_320_960 + 512, options: values, references: ReferenceOpener())
    #expect(throws: EngineError(.tooLarge, "The image size is too large for file format 'vpc'")) {
      try VPCFormat.create(on: MemoryStore([]), request)
    }
  }

  /// Who made a disk decides by what its size goes; the option goes before it.
  @Test(arguments: [
    ("vpc ", 34_816), ("vs  ", 34_816), ("qemu", 34_816), ("qem2", 1_048_576), ("win ", 1_048_576),
    ("d2v ", 1_048_576), ("tap\0", 1_048_576), ("CTXS", 1_048_576), ("wa\0\0", 1_048_576), ("", 1_048_576),
  ])
  func creatorDecidesOnTheSize(_ creator: String, _ expected: UInt64) throws {
    var image = VPCImage()
    image.creator = creator.isEmpty ? "who?" : creator
    var bytes = image.empty(byteCount: 1 << 20)
    for start in [0, bytes.count - 512] {
      bytes.put(bigEndian: UInt32(0x0001_0411), at: start + 56)
      VPCImage.sealFooter(&bytes, at: start)
    }
    func size(_ option: String?) throws -> UInt64 {
      var request = LayerRequest(path: "x", access: .readOnly, references: ReferenceOpener())
      request.options["force_size_calc"] = option
      return try VPCFormat.open(MemoryStore(bytes), request).virtualSize
    }
    #expect(try size(nil) == expected)
    #expect(try size("chs") == 34_816)
    #expect(try size("current_size") == 1_048_576)
    #expect(throws: EngineError.invalid("Invalid size calculation mode: 'both'")) { try size("both") }
  }

  /// With the largest geometry everybody goes by the size, whatever is asked for.
  @Test func largestGeometrySaysNothing() throws {
    let bytes = VPCImage().empty(byteCount: 1 << 20)
    var request = LayerRequest(path: "x", access: .readOnly, references: ReferenceOpener())
    request.options["force_size_calc"] = "chs"
    #expect(try VPCFormat.open(MemoryStore(bytes), request).virtualSize == 1 << 20)
  }

  @Test func onlyDynamicDisksAreProbed() throws {
    func probed(_ bytes: [UInt8]) throws -> String {
      try ImageOpener.probe(MemoryStore(bytes), path: "x").name
    }
    #expect(try probed(VPCImage().empty(byteCount: 1 << 20)) == "vpc")
    #expect(
      try probed(VPCImage().fixed([UInt8](repeating: 0, count: 4096), id: .init(repeating: 1, count: 16)))
        == "raw")
    #expect(try probed(Array("conecti".utf8)) == "raw")
    #expect(try probed([]) == "raw")
  }

  /// A footer is read and written without a change.
  @Test func footerIsWrittenAsItWasRead() throws {
    let bytes = Array(VPCImage().empty(byteCount: 1 << 20).prefix(512))
    #expect(try bytes.parsed(VPCFooter.parse).bytes == bytes)
  }

  /// 2040 GiB are opened, looked through and begun to be written at once.
  @Test func largestDiskIsOpenedAtOnce() throws {
    var values = OptionValues(VPCFormat.createOptions)
    values.set("force_size", to: .flag(true))
    let store = MemoryStore([])
    try VPCFormat.create(
      on: store,
      CreateRequest(
        path: "x", virtualSize: 2_190_433_320_960, options: values, references: ReferenceOpener()))
    let clock = ContinuousClock()
    let time = try clock.measure {
      let chain = try ImageChain.over(store, format: VPCFormat.self)
      #expect(try chain.extent(at: 1 << 40, limit: 4096).extent.source == .zeros)
    }
    #expect(time < .milliseconds(100))
  }
}
