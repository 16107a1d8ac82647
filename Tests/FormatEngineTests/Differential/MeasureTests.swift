import Foundation
import FormatEngine
import TestSupport
import Testing

/// Sizes of images that are not made yet, against the judge's.
@Suite struct MeasureTests {
  private func options(_ random: inout SeededRandom) -> [String] {
    var options: [String] = []
    if random.below(10) < 6 { options.append("cluster_size=\(1 << (9 + random.below(13)))") }
    if random.oneIn(4) {
      options.append("preallocation=\(["off", "metadata", "falloc", "full"][random.below(4)])")
    }
    if random.oneIn(6) { options.append("backing_file=x") }
    if random.oneIn(8) { options.append("data_file=x") }
    if random.oneIn(6) {
      options.append("compat=0.10")
    } else {
      if random.oneIn(3) { options.append("extended_l2=on") }
      if random.oneIn(3) { options.append("refcount_bits=\(1 << random.below(7))") }
    }
    return options
  }

  private func ours(_ options: [String], size: UInt64, _ source: ImageChain?) -> FormatEngine.Measurement? {
    var values = OptionValues(Qcow2Format.createOptions)
    for option in options {
      let parts = option.split(separator: "=").map(String.init)
      try? values.set(parts[0], to: parts[1])
    }
    var request = MeasureRequest(virtualSize: size, options: values, source: source)
    request.bitmaps = source?.top as? any BitmapKeeping
    return try? Qcow2Format.measure(request)
  }

  private func judged(_ options: [String], _ what: [String]) throws -> FormatEngine.Measurement? {
    let list = options.isEmpty ? [] : ["-o", options.joined(separator: ",")]
    let result = try ReferenceTool.qemuImg.run(["measure", "--output=json", "-O", "qcow2"] + list + what)
    guard result.status == 0 else { return nil }
    struct Sizes: Decodable {
      let required: UInt64
      let fullyAllocated: UInt64
      let bitmaps: UInt64?
      enum CodingKeys: String, CodingKey {
        case required, bitmaps
        case fullyAllocated = "fully-allocated"
      }
    }
    let sizes = try JSONDecoder().decode(Sizes.self, from: Data(result.stdout))
    return FormatEngine.Measurement(
      required: sizes.required, fullyAllocated: sizes.fullyAllocated, bitmaps: sizes.bitmaps)
  }

  @Test func everyOptionSetGivesTheJudgesNumbers() throws {
    var random = SeededRandom.fromEnvironment(or: 2024)
    try TemporaryFolder.with { folder in
      var sources: [String] = []
      for (index, size) in ["0", "300M", "10M", "9999872"].enumerated() {
        let path = folder.file("\(index).qcow2")
        try ReferenceTool.qemuImg(
          "create", "-q", "-f", "qcow2", "-o", "cluster_size=\(4 << (2 * index))k", path, size)
        if index > 0 {
          try ReferenceTool.io(
            ["write 1M 3M", "write 5000k 1k", "write -z 6M 1M", "write -c 8M 256k"], on: path, format: "qcow2"
          )
          try ReferenceTool.qemuImg("bitmap", "--add", "-g", "\(512 << index)", path, "bitmap\(index)")
        }
        sources.append(path)
      }
      let raw = folder.file("raw")
      try ReferenceTool.qemuImg("convert", "-f", "qcow2", "-O", "raw", sources[1], raw)
      sources.append(raw)
      for _ in 0..<Effort.rounds(200) {
        let options = options(&random)
        if random.oneIn(2) {
          let size = random.next() >> UInt64(1 + random.below(62))
          #expect(
            try ours(options, size: size, nil) == judged(options, ["--size", "\(size)"]),
            "\(options) \(size) \(random)")
        } else {
          let path = sources[random.below(sources.count)]
          let chain = try ImageOpener.open(path)
          #expect(
            try ours(options, size: chain.virtualSize, chain) == judged(options, [path]),
            "\(options) \(path) \(random)")
        }
      }
    }
  }

  /// The judge measures time for LUKS before it answers, and not every machine lets it.
  @Test(arguments: [
    (512, "aes-256", "xts", 2_068_480), (65536, "aes-256", "xts", 2_097_152),
    (512, "aes-128", "xts", 1_052_672),
    (2 << 20, "serpent-192", "cbc", 2 << 20), (512, "cast5-128", "cbc", 528_384),
  ])
  func headerOfTheEncryptionIsCounted(
    _ clusterSize: Int, _ cipher: String, _ mode: String, _ headerByteCount: UInt64
  ) throws {
    func measured(_ names: [String: String]) throws -> FormatEngine.Measurement {
      var values = OptionValues(Qcow2Format.createOptions)
      try values.set("cluster_size", to: "\(clusterSize)")
      for (name, value) in names { try values.set("encrypt.\(name)", to: value) }
      var request = MeasureRequest(virtualSize: 1 << 30, options: values)
      request.secrets.add(try Secret.text("x", .raw), id: "s")
      return try Qcow2Format.measure(request)
    }
    let plain = try measured([:])
    let encrypted = try measured([
      "format": "luks", "key-secret": "s", "cipher-alg": cipher, "cipher-mode": mode,
    ])
    #expect(encrypted.required - plain.required == headerByteCount)
    #expect(encrypted.fullyAllocated - plain.fullyAllocated == headerByteCount)
  }
}
