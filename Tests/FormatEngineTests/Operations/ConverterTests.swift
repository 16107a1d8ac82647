import FormatEngine
import TestSupport
import Testing

/// What the workers of a conversion owe each other: order, whole clusters, and the end of all when one fails.
@Suite struct ConverterTests {
  /// A new qcow2 image in memory that `sources` were copied into.
  private func copy(
    _ sources: [ImageChain], options: [String: String] = [:], into store: any ByteStore = MemoryStore(),
    progress: Progress = .none, _ change: (inout ConvertOptions) -> Void
  ) throws -> ImageChain {
    var values = OptionValues(Qcow2Format.createOptions)
    for (name, value) in options { try values.set(name, to: value) }
    let size = sources.reduce(0) { $0 + $1.virtualSize }
    try Qcow2Format.create(
      on: store,
      CreateRequest(path: "target", virtualSize: size, options: values, references: ReferenceOpener()))
    let layer = try Qcow2Format.open(
      store, LayerRequest(path: "target", access: .readWrite, references: ReferenceOpener()))
    let target = ImageChain(
      members: [ChainMember(layer: layer, file: store, path: "target", formatName: "qcow2")],
      access: .readWrite)
    var convert = ConvertOptions()
    convert.threadCount = 4
    change(&convert)
    try Converter.convert(from: sources, to: target, convert, progress: progress)
    try target.flush()
    return target
  }

  /// Who watches sees how much of what is stored is copied; holes are no work.
  @Test(arguments: [false, true]) func progressCountsWhatIsStored(isWatched: Bool) throws {
    let source = try copy([try raw([UInt8](repeating: 0, count: 64 << 20))]) { _ in }
    let writable = ImageChain(members: source.members, access: .readWrite)
    for offset: UInt64 in [0, 2, 4, 32] { try writable.writeBytes([1, 2, 3], at: offset << 20) }
    let steps = Guarded<[String]>([])
    let progress = Progress(isWatched: isWatched) { done, total in
      steps.withLock { $0.append("\(done >> 16)/\(total >> 16)") }
    }
    _ = try copy([writable], progress: progress) { _ in }
    let seen = steps.withLock { $0 }
    if isWatched { #expect(seen == ["1/4", "2/4", "3/4", "4/4"]) }
    #expect(seen.last == (isWatched ? "4/4" : "1024/1024"))
  }

  private func raw(_ bytes: [UInt8]) throws -> ImageChain {
    let store = MemoryStore(bytes)
    let layer = try RawFormat.open(
      store, LayerRequest(path: "source", access: .readOnly, references: ReferenceOpener()))
    return ImageChain(members: [ChainMember(layer: layer, file: store, path: "source", formatName: "raw")])
  }

  @Test(arguments: [false, true]) func twoRunsGiveTheSameFile(compress: Bool) throws {
    let source = try raw(MixedContent.disk(byteCount: 12 << 20).bytes)
    let files = try (0..<3).map { _ in
      let store = MemoryStore()
      _ = try copy([source], into: store) { $0.compress = compress }
      return store.snapshot
    }
    #expect(files[0] == files[1] && files[0] == files[2])
  }

  @Test func clustersLieInTheOrderOfTheDisk() throws {
    let bytes = (0..<(8 << 20)).map { UInt8(truncatingIfNeeded: $0 / 512) | 1 }
    let target = try copy([try raw(bytes)]) { _ in }
    let extent = try target.extent(at: 0, limit: target.virtualSize).extent
    #expect(extent.source == .stored && extent.length == target.virtualSize)
  }

  /// A cluster that two sources share is packed like any other.
  @Test func sourcesShareACluster() throws {
    let first = [UInt8](repeating: 1, count: 100 * 512)
    let second = [UInt8](repeating: 2, count: 300 * 512)
    let target = try copy([try raw(first), try raw(second)]) { $0.compress = true }
    #expect(try target.readAll() == first + second)
    var offset: UInt64 = 0
    while offset < target.virtualSize {
      let found = try target.extent(at: offset, limit: target.virtualSize - offset).extent
      #expect(found.source == .compressed, "at \(offset)")
      offset += found.length
    }
  }

  /// The error of the write that failed comes out, whatever the others were waiting for.
  @Test(arguments: [false, true]) func aFailedWriteEndsAllWorkers(compress: Bool) throws {
    let source = try raw(MixedContent.disk(byteCount: 24 << 20).bytes)
    for number in [0, 3, 7] {
      let store = FaultStore(MemoryStore())
      let error = #expect(throws: EngineError.self) {
        _ = try copy([source], into: store) {
          $0.compress = compress
          store.arm(failing: number, forEver: true, of: [.write])
        }
      }
      #expect(error?.message.hasPrefix("error while writing at byte ") == true, "\(error?.message ?? "")")
    }
  }

  /// A raw file is written one by one, but in any order: what is in it is the same.
  @Test(arguments: [false, true]) func rawTargetsGetEveryByte(anyOrder: Bool) throws {
    let model = MixedContent.disk(byteCount: 24 << 20)
    let packed = try copy([try raw(model.bytes)]) { $0.compress = true }
    let store = MemoryStore([UInt8](repeating: 0, count: model.bytes.count))
    let layer = try RawFormat.open(
      store, LayerRequest(path: "target", access: .readWrite, references: ReferenceOpener()))
    let target = ImageChain(
      members: [ChainMember(layer: layer, file: store, path: "target", formatName: "raw")], access: .readWrite
    )
    var options = ConvertOptions()
    options.threadCount = 4
    options.allowsAnyOrder = anyOrder
    try Converter.convert(from: [packed], to: target, options)
    #expect(store.snapshot == model.bytes)
  }

  /// Onto an image that is there already zeros are written down, as qemu-img does with -n.
  @Test func zerosAreMarkedWhereTheTargetIsNotKnownToBeEmpty() throws {
    let source = try raw([UInt8](repeating: 0, count: 1 << 20))
    let marked = try copy([source]) { $0.targetReadsAsZeros = false }
    #expect(try marked.locate(at: 0, limit: 1 << 20).extent.source == .zeros)
    let unmarked = try copy([source]) { _ in }
    #expect(try unmarked.locate(at: 0, limit: 1 << 20).extent.source == .below)
  }

  /// Segments of 2 MiB: the first passes at once, the others wait for what went before them.
  @Test func rateLimitHoldsBack() throws {
    try TemporaryFolder.with { folder in
      let source = try ImageOpener.open(
        try folder.write([UInt8](repeating: 7, count: 6 << 20), to: "source"), OpenOptions(format: "raw"))
      let path = try folder.write([UInt8](repeating: 0, count: 6 << 20), to: "target")
      let target = try ImageOpener.open(path, OpenOptions(format: "raw", access: .readWrite))
      var options = ConvertOptions()
      options.rateLimit = 20 << 20
      let clock = ContinuousClock()
      let time = try clock.measure { try Converter.convert(from: [source], to: target, options) }
      #expect(time > .milliseconds(190))
      #expect(try target.readAll() == source.readAll())
    }
  }

  /// Parallels' clusters may have 2 GiB: none of them is read into memory at once, one for each thread.
  @Test func hugeClustersAreCopiedInPieces() throws {
    let byteCount: UInt64 = 40 << 20
    let bytes = CountingStore(MemoryStore([UInt8](repeating: 7, count: Int(byteCount))))
    let plain = try RawFormat.open(
      bytes, LayerRequest(path: "source", access: .readOnly, references: ReferenceOpener()))
    let source = ImageChain(
      members: [ChainMember(layer: plain, file: bytes, path: "source", formatName: "raw")])
    var values = OptionValues(ParallelsFormat.createOptions)
    try values.set("cluster_size", to: String(byteCount))
    let store = MemoryStore()
    try ParallelsFormat.create(
      on: store,
      CreateRequest(path: "target", virtualSize: byteCount, options: values, references: ReferenceOpener()))
    let layer = try ParallelsFormat.open(
      store, LayerRequest(path: "target", access: .readWrite, references: ReferenceOpener()))
    let target = ImageChain(
      members: [ChainMember(layer: layer, file: store, path: "target", formatName: "parallels")],
      access: .readWrite)
    var options = ConvertOptions()
    options.threadCount = 4
    try Converter.convert(from: [source], to: target, options)
    #expect(bytes.callCount(.read) >= 20)
    #expect(try target.readAll() == source.readAll())
  }
}
