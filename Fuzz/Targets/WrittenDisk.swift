import FormatEngine
import TestSupport

/// An image and its model, to which the same is done.
struct WrittenDisk {
  private let kind: WrittenKind
  private let store: SparseStore
  private let lower: ChainMember?
  private let below: ModelDisk?
  private var model: ModelDisk
  private var snapshots: [String: ModelDisk] = [:]
  private var chain: ImageChain
  /// What was done, for messages.
  private var story: [String] = []

  private static let maximumSnapshotCount = 4

  init(_ kind: WrittenKind, sectorCount: Int) throws {
    self.kind = kind
    let byteCount = sectorCount * 512
    store = SparseStore()
    guard let format = FormatCatalog.format(named: kind.format) as? any CreatableFormat.Type else {
      throw FuzzFinding("No images of \(kind.format) can be made")
    }
    var values = OptionValues(format.createOptions)
    for (name, text) in kind.options { try values.set(name, to: text) }
    var request = CreateRequest(
      path: "image", virtualSize: UInt64(byteCount), options: values,
      references: ReferenceOpener(policy: ReferencePolicy(.nowhere)))
    if kind.isOverlay {
      request.backing = BackingReference(name: "below", format: "raw")
      // Shorter than the disk over it.
      let bytes = [UInt8](repeating: 0xbb, count: byteCount / 3 * 2)
      let file = MemoryStore(bytes)
      let chain = try FuzzedImage.open(file, format: "raw", path: "below")
      lower = chain.members.first
      below = ModelDisk(bytes)
      model = ModelDisk(bytes + [UInt8](repeating: 0, count: byteCount - bytes.count))
    } else {
      (lower, below) = (nil, nil)
      model = ModelDisk(byteCount: byteCount)
    }
    try format.create(on: store, request)
    chain = try Self.open(store, kind, over: lower)
    // Formats that count in larger units than sectors.
    if chain.virtualSize != UInt64(byteCount) { follow(size: Int(chain.virtualSize)) }
  }

  private static func open(_ store: SparseStore, _ kind: WrittenKind, over lower: ChainMember?)
    throws(EngineError) -> ImageChain
  {
    let top = try FuzzedImage.open(store, format: kind.format, .readWrite)
    return ImageChain(members: top.members + (lower.map { [$0] } ?? []), access: .readWrite)
  }

  // MARK: Steps

  mutating func step(_ input: inout FuzzInput) throws {
    let choice = input.byte() % 16
    switch choice {
    case 0: try chain.flush()
    case 1: try reopen()
    case 2: try resize(&input)
    case 3, 4: try changeSnapshots(&input, choice == 3)
    case 5: try compare("asked for")
    default: try changeBytes(&input, choice)
    }
  }

  private mutating func changeBytes(_ input: inout FuzzInput, _ choice: UInt8) throws {
    guard model.byteCount > 0 else { return }
    let unit = max(Int(chain.top.clusterSize), 512)
    let range = input.range(in: model.byteCount, most: min(3 * unit, 200_000), unit: unit)
    let (offset, count) = (UInt64(range.lowerBound), UInt64(range.count))
    switch choice {
    case 6, 7:
      story.append("zeros \(range)")
      try chain.writeZeros(at: offset, count: count, keepingRoom: choice == 7)
      model.writeZeros(at: range.lowerBound, count: range.count)
    case 8, 9:
      story.append("discard \(range)")
      try chain.discard(at: offset, count: count)
      let now = try chain.readBytes(at: offset, count: range.count)
      if let wrong = model.discard(at: range.lowerBound, reading: now, below: below) {
        throw finding("byte \(wrong) reads as nothing that is allowed")
      }
    default:
      story.append("write \(range)")
      let bytes = [UInt8](repeating: input.byte(), count: range.count)
      try chain.writeBytes(bytes, at: offset)
      model.write(bytes, at: range.lowerBound)
    }
  }

  private mutating func reopen() throws {
    story.append("reopen")
    try chain.close()
    try checkImage()
    chain = try Self.open(store, kind, over: lower)
    try compare("opened again")
  }

  private mutating func resize(_ input: inout FuzzInput) throws {
    guard chain.top is any Resizable else { return }
    let size = (1 + input.below(kind.maximumSectorCount)) * 512
    story.append("resize \(size)")
    do throws(EngineError) { try chain.resize(to: UInt64(size)) } catch {
      // What a format cannot do it says.
      guard chain.virtualSize == UInt64(model.byteCount) else {
        throw finding("failed, and has another size")
      }
      return
    }
    follow(size: Int(chain.virtualSize))
    try compare("resized")
  }

  /// What is added reads as zeros.
  private mutating func follow(size: Int) {
    let kept = model.read(at: 0, count: min(size, model.byteCount))
    model = ModelDisk(kept + [UInt8](repeating: 0, count: size - kept.count))
  }

  private mutating func changeSnapshots(_ input: inout FuzzInput, _ adds: Bool) throws {
    guard let keeper = chain.top as? any SnapshotChanging else { return }
    let records = try keeper.snapshots()
    if adds {
      guard records.count < Self.maximumSnapshotCount else { return }
      story.append("snapshot")
      let made = try? chain.changingWhole { () throws(EngineError) in
        try keeper.createSnapshot(named: "s", at: SnapshotDate(seconds: 1, nanoseconds: 0))
      }
      if let made { snapshots[made.id] = model }
      return
    }
    guard !records.isEmpty else { return }
    let record = records[input.below(records.count)]
    let applies = input.flag()
    story.append("\(applies ? "apply" : "delete") \(record.id)")
    do throws(EngineError) {
      try chain.changingWhole { () throws(EngineError) in
        if applies { try keeper.applySnapshot(record) } else { try keeper.deleteSnapshot(record) }
      }
    } catch {
      // With few bits a count cannot always be raised.
      guard error.code == .tooLarge else { throw error }
      return
    }
    if applies { model = snapshots[record.id] ?? model } else { snapshots[record.id] = nil }
    try compare("\(applies ? "went back to" : "deleted") \(record.id)")
  }

  // MARK: Comparing

  private func finding(_ what: String) -> FuzzFinding {
    FuzzFinding("\(kind.format) \(kind.options): \(what); \(story.joined(separator: ", "))")
  }

  private func compare(_ moment: String) throws {
    guard chain.virtualSize == UInt64(model.byteCount) else {
      throw finding("\(moment): the disk has \(chain.virtualSize) bytes, not \(model.byteCount)")
    }
    if let wrong = ModelDisk.firstDifference(try chain.readAll(), model.bytes) {
      throw finding("\(moment): byte \(wrong) differs from the model")
    }
    guard let keeper = chain.top as? any SnapshotKeeping else { return }
    for record in try keeper.snapshots() {
      guard let kept = snapshots[record.id] else {
        throw finding("\(moment): snapshot \(record.id) is not known")
      }
      let bytes = try chain.replacing(layerAt: 0, with: try keeper.openSnapshot(record)).readAll()
      if let wrong = ModelDisk.firstDifference(bytes, kept.bytes) {
        throw finding("\(moment): byte \(wrong) of snapshot \(record.id) differs from the model")
      }
    }
  }

  /// The closed image is sound, without a leak.
  private func checkImage() throws {
    let image = try FuzzedImage.open(store, format: kind.format, isForInspection: true)
    guard let report = try (image.top as? any Checkable)?.check(progress: .none) else { return }
    guard report.corruptions == 0, report.leaks == 0, report.checkErrors == 0 else {
      throw finding("\(report.findings.prefix(3))")
    }
  }

  mutating func finish() throws {
    try compare("at the end")
    try reopen()
    try chain.close()
  }
}
