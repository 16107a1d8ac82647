import FormatEngine
import TestSupport
import Testing

/// Our images and the judge's, turned into each other.
@Suite struct VDIConversionTests {
  private static let size = 5 * (1 << 20) + 512

  private static func source(_ folder: TemporaryFolder) throws -> (path: String, model: ModelDisk) {
    var random = SeededRandom.fromEnvironment(or: 71)
    var model = ModelDisk(byteCount: size)
    for _ in 0..<6 {
      let range = random.range(in: size, most: 200_000)
      model.write(random.bytes(range.count), at: range.lowerBound)
    }
    return (try folder.write(model.bytes, to: "disk.raw"), model)
  }

  private static func ours(
    _ source: String, _ format: String, to target: String, as name: String, _ more: [String: String] = [:]
  ) throws {
    let type = try ImageCreator.creatableFormat(name)
    let chain = try ImageOpener.open(source, OpenOptions(format: format))
    var values = OptionValues(ImageCreator.options(of: type))
    values.set("size", to: .number(chain.virtualSize))
    for (key, text) in more { try values.set(key, to: text) }
    _ = try ImageCreator.create(target, format: type, options: values)
    let made = try ImageOpener.open(target, OpenOptions(format: name, access: .readWrite))
    try Converter.convert(from: [chain], to: made, ConvertOptions())
    try made.close()
  }

  private static func judge(
    _ source: String, _ format: String, to target: String, as name: String, _ more: [String: String] = [:]
  ) throws {
    let options = more.map { "\($0.key)=\($0.value)" }.joined(separator: ",")
    let given = options.isEmpty ? [] : ["-o", options]
    try ReferenceTool.qemuImg.run(["convert", "-f", format, "-O", name] + given + [source, target]).expecting(
      0)
  }

  /// raw -> vdi -> qcow2 -> vdi -> raw; each step is ours or the judge's.
  @Test(arguments: [0b0000, 0b1111, 0b0101, 0b1010, 0b0011, 0b1100], ["off", "on"])
  func contentStaysTheSame(_ turns: Int, _ isStatic: String) throws {
    try TemporaryFolder.with { folder in
      let (path, model) = try Self.source(folder)
      var (current, format) = (path, "raw")
      for (step, name) in ["vdi", "qcow2", "vdi", "raw"].enumerated() {
        let target = folder.file("step\(step).\(name)")
        let options = name == "vdi" ? ["static": isStatic] : [:]
        if turns >> step & 1 == 0 {
          try Self.ours(current, format, to: target, as: name, options)
        } else {
          try Self.judge(current, format, to: target, as: name, options)
        }
        (current, format) = (target, name)
        guard name == "vdi" else { continue }
        let verdict = try ReferenceTool.check(target, format: "vdi")
        #expect(verdict.corruptions == 0 && verdict.checkErrors == 0, "\(verdict.text)")
        let report = try #require(try ImageOpener.open(target).top as? any Checkable).check(progress: .none)
        #expect(report == CheckReport(), "\(report.findings)")
      }
      #expect(ModelDisk.firstDifference(try Files.read(current), model.bytes) == nil)
    }
  }

  /// Sizes at which the map or the last block begins to be another.
  @Test(arguments: [0, 512, 1 << 20, 1 << 20 + 512, 128 << 20, 128 << 20 + 512, 1 << 40], ["off", "on"])
  func createdImageIsTheJudges(_ size: UInt64, _ isStatic: String) throws {
    try TemporaryFolder.with { folder in
      var values = OptionValues(ImageCreator.options(of: VDIFormat.self))
      values.set("size", to: .number(size))
      try values.set("static", to: isStatic)
      let (mine, its) = (folder.file("mine.vdi"), folder.file("its.vdi"))
      guard size < 1 << 30 || isStatic == "off" else { return }
      _ = try ImageCreator.create(mine, format: VDIFormat.self, options: values)
      try ReferenceTool.qemuImg("create", "-q", "-f", "vdi", "-o", "static=\(isStatic)", its, "\(size)")
      var bytes = try [mine, its].map { try FileStore.open($0, access: .readOnly).bytes(at: 0, count: 4608) }
      let sizes = try [mine, its].map { try FileStore.open($0, access: .readOnly).byteCount() }
      #expect(sizes[0] == sizes[1])
      // All but the two UUIDs.
      for index in 0...1 { bytes[index].replaceSubrange(392..<424, with: repeatElement(0, count: 32)) }
      #expect(bytes[0] == bytes[1])
    }
  }

  @Test(arguments: ["off", "on"]) func measuredSizeIsTheFiles(_ isStatic: String) throws {
    try TemporaryFolder.with { folder in
      let (path, _) = try Self.source(folder)
      // One that tells where it holds something.
      let source = folder.file("disk.qcow2")
      try Self.judge(path, "raw", to: source, as: "qcow2")
      let chain = try ImageOpener.open(source, OpenOptions(format: "qcow2"))
      var values = OptionValues(VDIFormat.createOptions)
      try values.set("static", to: isStatic)
      let measured = try VDIFormat.measure(
        MeasureRequest(virtualSize: chain.virtualSize, options: values, source: chain))
      let target = folder.file("disk.vdi")
      try Self.ours(source, "qcow2", to: target, as: "vdi", ["static": isStatic])
      #expect(try FileStore.open(target, access: .readOnly).byteCount() == measured.required)
      #expect(measured.required <= measured.fullyAllocated)
    }
  }
}
