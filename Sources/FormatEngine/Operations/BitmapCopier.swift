/// Copies the persistent bitmaps of one image into another whose disk is as large. Messages are qemu-img's.
public struct BitmapCopier {
  private let source: any BitmapKeeping
  /// What is copied, in the order of the source's list.
  private let copied: [BitmapRecord]
  /// Inconsistent bitmaps that are left out.
  public let skipped: [String]

  /// Looks at the source's bitmaps. An inconsistent one is an error, unless such ones are left out.
  public init(from layer: any ImageLayer, skippingBroken: Bool) throws(EngineError) {
    guard let source = layer as? any BitmapKeeping else {
      throw .unsupported("Source lacks bitmap support")
    }
    let records = try source.bitmaps()
    // qemu-img meets them the last one first.
    let broken = records.reversed().filter(\.isInconsistent).map(\.name)
    if let first = broken.first, !skippingBroken {
      throw .invalid(
        "Cannot copy inconsistent bitmap '\(first)'\n"
          + "Try --skip-broken-bitmaps, or use 'qemu-img bitmap --remove' to delete it")
    }
    self.source = source
    copied = records.filter { !$0.isInconsistent }
    skipped = broken
  }

  /// Whether bitmaps can be copied into images like this one.
  public static func canCopy(to layer: any ImageLayer) -> Bool {
    guard let layer = layer as? any BitmapChanging else { return false }
    return layer.bitmapRules.refusal == nil
  }

  /// Bits that are held at once: whatever a source says, some dozen bitmaps of 64 TiB at 64 KiB a bit.
  public static let maximumWaiting = Int(64 * MiB)

  /// Adds all of them. On disk when it returns; nothing is changed where one of them cannot be added.
  ///
  /// `byteCount`: how many bytes of bits may wait in memory before they are stored.
  public func copy(to target: ImageChain, holding byteCount: Int = maximumWaiting) throws(EngineError) {
    guard let layer = target.top as? any BitmapChanging else {
      throw .unsupported("Format driver '\(target.members[0].formatName)' does not support bitmaps")
    }
    try target.changingWhole { () throws(EngineError) in
      var rest = copied[...]
      while !rest.isEmpty {
        try layer.changeBitmaps { (editor) throws(EngineError) in
          if rest.count == copied.count { try tryAll(editor) }
          while let record = rest.first, editor.waitingByteCount < byteCount {
            try Self.add(record, to: &editor)
            try editor.merge(record.name, of: source, into: record.name)
            rest.removeFirst()
          }
        }
      }
    }
  }

  /// Throws where one of them cannot be added: the last one first, as qemu-img tells.
  private func tryAll(_ editor: BitmapEditor) throws(EngineError) {
    var trial = editor
    for record in copied.reversed() { try Self.add(record, to: &trial) }
    do throws(EngineError) {
      try editor.requireSameSize(source)
    } catch {
      throw error.whileTrying("Failed to populate bitmap \(copied.last?.name ?? "")")
    }
  }

  private static func add(_ record: BitmapRecord, to editor: inout BitmapEditor) throws(EngineError) {
    do throws(EngineError) {
      try editor.add(record.name, granularity: record.granularity, isEnabled: record.isEnabled)
    } catch {
      throw error.whileTrying("Failed to create bitmap \(record.name)")
    }
  }
}
