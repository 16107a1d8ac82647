/// The dirty bitmaps of an image while they are being changed: what is stored is not touched, what is new
/// is in memory. Messages are qemu-img's.
public struct BitmapEditor {
  /// A bitmap as it is to be.
  struct Entry {
    var record: BitmapRecord
    /// Its place in the image's own list; nil for one that is new.
    let storedIndex: Int?
    /// Its stored bits count; false for one that is new or was cleared.
    var keepsStoredBits: Bool
    /// Bits that come to those.
    var added: DirtyBits

    var changesBits: Bool { !keepsStoredBits || !added.isEmpty }
  }

  private(set) var entries: [Entry]
  /// By the bytes of the names: other texts than the same are other names.
  private var indices: [[UInt8]: Int] = [:]
  private let image: any BitmapKeeping
  private let rules: BitmapRules

  /// `stored`: the image's own list.
  init(_ stored: [BitmapRecord], of image: any BitmapKeeping, _ rules: BitmapRules) {
    self.image = image
    self.rules = rules
    entries = stored.enumerated().map { index, record in
      Entry(
        record: record, storedIndex: index, keepsStoredBits: true,
        added: DirtyBits(
          granularityBits: UInt64(record.granularity.trailingZeroBitCount), virtualSize: image.virtualSize))
    }
    findAgain()
  }

  public var records: [BitmapRecord] { entries.map(\.record) }

  /// About how many bytes of bits were merged and wait to be stored.
  private(set) var waitingByteCount = 0

  /// Whether the list is still the one that is stored.
  func isUnchanged(from stored: [BitmapRecord]) -> Bool {
    entries.count == stored.count
      && entries.enumerated().allSatisfy { index, entry in
        entry.storedIndex == index && entry.record == stored[index] && !entry.changesBits
      }
  }

  /// A new bitmap at the end of the list. `granularity` 0 leaves the choice to the format.
  public mutating func add(_ name: String, granularity: UInt64 = 0, isEnabled: Bool = true)
    throws(EngineError)
  {
    guard !name.isEmpty else { throw .invalid("Bitmap name cannot be empty") }
    let bits =
      granularity == 0 ? rules.defaultGranularityBits : UInt64(granularity.trailingZeroBitCount)
    guard granularity == 0 || granularity.nonzeroBitCount == 1, rules.granularityBits.contains(bits) else {
      throw .invalid(
        "Granularity must be power of 2 and at least \(1 << rules.granularityBits.lowerBound)")
    }
    guard indices[name.hostBytes] == nil else { throw .invalid("Bitmap already exists: \(name)") }
    func refusal(_ words: String) -> EngineError {
      .invalid("Can't make bitmap '\(name)' persistent: \(words)")
    }
    if let reason = rules.refusal { throw refusal(reason) }
    guard name.hostBytes.count <= rules.maximumNameLength else {
      throw refusal("Name length exceeds maximum (\(rules.maximumNameLength) characters)")
    }
    guard image.virtualSize > 0 else { throw refusal("The disk has no bytes") }
    guard entries.count < rules.maximumCount else {
      throw refusal("Maximum number of persistent bitmaps is already reached")
    }
    let bitCount = image.virtualSize.dividedRoundingUp(by: 1 << bits)
    guard bitCount.dividedRoundingUp(by: 8) <= rules.maximumByteCount else {
      throw refusal("Too much space will be occupied by the bitmap. Use larger granularity")
    }
    indices[name.hostBytes] = entries.count
    entries.append(
      Entry(
        record: BitmapRecord(name: name, granularity: 1 << bits, isEnabled: isEnabled),
        storedIndex: nil, keepsStoredBits: false,
        added: DirtyBits(granularityBits: bits, virtualSize: image.virtualSize)))
  }

  /// Also an inconsistent one can be removed.
  public mutating func remove(_ name: String) throws(EngineError) {
    entries.remove(at: try found(name))
    findAgain()
  }

  /// No granule is dirty any more.
  public mutating func clear(_ name: String) throws(EngineError) {
    let index = try usable(name)
    entries[index].keepsStoredBits = false
    entries[index].added = DirtyBits(
      granularityBits: entries[index].added.granularityBits, virtualSize: image.virtualSize)
  }

  public mutating func setEnabled(_ name: String, to isEnabled: Bool) throws(EngineError) {
    entries[try usable(name)].record.isEnabled = isEnabled
  }

  /// Sets the bit of every granule that is dirty in a bitmap of the same image.
  public mutating func merge(_ source: String, into name: String) throws(EngineError) {
    let index = try usable(name)
    let from = entries[try usable(source)]
    guard from.record.name != entries[index].record.name else { return }
    if from.keepsStoredBits {
      try mergeStored(from.record.name, of: image, intoEntry: index)
    }
    var added = entries[index].added
    try from.added.forEachRun { (run) throws(EngineError) in added.insert(run) }
    entries[index].added = added
  }

  /// Sets the bit of every granule that is dirty in a bitmap of another image, whose disk must be as large.
  public mutating func merge(_ source: String, of other: any ImageLayer, into name: String)
    throws(EngineError)
  {
    let index = try usable(name)
    guard let other = other as? any BitmapKeeping else { throw Self.notFound(source) }
    guard let record = try other.bitmap(named: source) else { throw Self.notFound(source) }
    try Self.requireConsistent(record)
    try requireSameSize(other)
    try mergeStored(source, of: other, intoEntry: index)
  }

  func requireSameSize(_ other: any ImageLayer) throws(EngineError) {
    guard other.virtualSize == image.virtualSize else {
      throw .invalid(
        "Bitmaps are of different sizes (destination size is \(image.virtualSize), source size is"
          + " \(other.virtualSize)) and can't be merged")
    }
  }

  private mutating func mergeStored(_ source: String, of other: any BitmapKeeping, intoEntry index: Int)
    throws(EngineError)
  {
    var added = entries[index].added
    try other.forEachDirtyRun(of: source) { (run) throws(EngineError) in added.insert(run) }
    waitingByteCount += added.byteCount - entries[index].added.byteCount
    entries[index].added = added
  }

  private mutating func findAgain() {
    indices = [:]
    for (index, entry) in entries.enumerated() { indices[entry.record.name.hostBytes] = index }
  }

  private func found(_ name: String) throws(EngineError) -> Int {
    guard let index = indices[name.hostBytes] else { throw Self.notFound(name) }
    return index
  }

  private func usable(_ name: String) throws(EngineError) -> Int {
    let index = try found(name)
    try Self.requireConsistent(entries[index].record)
    return index
  }

  static func notFound(_ name: String) -> EngineError {
    EngineError(.notFound, "Dirty bitmap '\(name)' not found")
  }

  static func requireConsistent(_ record: BitmapRecord) throws(EngineError) {
    guard !record.isInconsistent else {
      throw .invalid(
        "Bitmap '\(record.name)' is inconsistent and cannot be used\n"
          + "Try block-dirty-bitmap-remove to delete this bitmap from disk")
    }
  }
}
