import FormatEngine
import TestSupport

/// Everything that can be asked of an image that somebody else made: open, information, extents, bytes, snapshots, bitmaps, check; and
/// where the input says so, writes and a repair.
struct ImageFuzzing {
  let format: any ImageFormat.Type

  /// How the first byte of an input has the image used.
  private struct Use: OptionSet {
    var rawValue: UInt8
    static let mendsChecksums = Use(rawValue: 1)
    static let writes = Use(rawValue: 2)
    static let repairs = Use(rawValue: 4)
    static let hasPassphrase = Use(rawValue: 8)
    static let resizes = Use(rawValue: 16)
  }

  func run(_ bytes: [UInt8]) throws {
    var input = FuzzInput(bytes)
    let use = Use(rawValue: input.byte())
    let store = try PackedImage.unpack(&input)
    if use.contains(.mendsChecksums) { try ChecksumMender(store: store).mend(format: format.name) }
    if format.name == "luks" { try ChecksumMender(store: store).limitKeyWork() }
    let changes = store.changeCount
    do {
      let chain = try open(store, .readOnly, use, isForInspection: use.contains(.repairs))
      do { try look(at: chain) } catch is EngineError {}
      guard store.changeCount == changes else { throw FuzzFinding("Reading changed the file") }
    }
    if use.contains(.repairs) { try repair(store, use) }
    if use.contains(.writes) || use.contains(.resizes) { try change(store, use, &input) }
  }

  private func open(
    _ store: SparseStore, _ access: FileAccess, _ use: Use, isForInspection: Bool = false
  ) throws(EngineError) -> ImageChain {
    try FuzzedImage.open(
      store, format: format.name, access, isForInspection: isForInspection,
      passphrase: use.contains(.hasPassphrase) ? "passphrase" : nil)
  }

  // MARK: Reading

  private func look(at chain: ImageChain) throws {
    try ExtentWalk(chain).run()
    let layer = chain.top
    _ = layer.backing
    if let describing = layer as? any SelfDescribing { _ = describing.formatSpecificInfo }
    if let keeping = layer as? any SnapshotKeeping {
      for record in (try? keeping.snapshots())?.prefix(4) ?? [] {
        guard let snapshot = try? keeping.openSnapshot(record) else { continue }
        try ExtentWalk(chain.replacing(layerAt: 0, with: snapshot)).run()
      }
    }
    if let keeping = layer as? any BitmapKeeping {
      for record in (try? keeping.bitmaps())?.prefix(4) ?? [] {
        _ = try? keeping.bitmap(named: record.name)
      }
    }
    if let checkable = layer as? any Checkable { _ = try checkable.check(progress: .none) }
  }

  // MARK: Changing

  /// What a repair says is mended is sound.
  private func repair(_ store: SparseStore, _ use: Use) throws {
    let chain = try open(store, .readWrite, use, isForInspection: true)
    guard let layer = chain.top as? any Repairable else { return }
    let report = try layer.repair(.all, progress: .none)
    try chain.close()
    guard report.corruptions == 0, report.checkErrors == 0, report.failure == nil else { return }
    do {
      let again = try open(store, .readOnly, use, isForInspection: true)
      guard let after = try (again.top as? any Checkable)?.check(progress: .none) else { return }
      guard after.corruptions == 0 else {
        throw FuzzFinding("Mended, and damaged still: \(after.findings.prefix(3))")
      }
    } catch let error as EngineError {
      throw FuzzFinding("Mended, and not to be read: \(error.message)")
    }
  }

  /// Some writes. What they do to such an image is its own affair, as long as they come to an end.
  private func change(_ store: SparseStore, _ use: Use, _ input: inout FuzzInput) throws {
    let chain = try open(store, .readWrite, use)
    let size = chain.virtualSize
    if use.contains(.resizes), chain.top is any Resizable {
      try? chain.resize(to: UInt64(input.number(bytes: 3)) * 512)
    }
    guard size > 0, use.contains(.writes) else { return try chain.close() }
    for _ in 0..<4 {
      let offset = UInt64(input.number(bytes: 6)) % size
      let count = Int(min(UInt64(1 + input.number(bytes: 2)), size - offset))
      switch input.byte() % 4 {
      case 0: try? chain.writeZeros(at: offset, count: UInt64(count))
      case 1: try? chain.discard(at: offset, count: UInt64(count))
      default: try? chain.writeBytes([UInt8](repeating: input.byte() | 1, count: count), at: offset)
      }
    }
    try chain.close()
  }
}
