import Synchronization

/// Bitmaps of a qcow2 image. What is asked of them while writes are being recorded stores those first.
extension Qcow2Layer: BitmapKeeping {
  func bitmaps() throws(EngineError) -> [BitmapRecord] {
    try state.withLock { (state) throws(EngineError) in
      let list = try state.bitmapDirectory()
      return list.bitmaps.map { state.record(of: $0) }
    }
  }

  func bitmap(named name: String) throws(EngineError) -> BitmapRecord? {
    try state.withLock { (state) throws(EngineError) in
      let bitmap = try state.bitmapDirectory().bitmap(named: name)
      return bitmap.map { state.record(of: $0) }
    }
  }

  func forEachDirtyRun(
    of name: String, _ body: (Range<UInt64>) throws(EngineError) -> Void
  ) throws(EngineError) {
    try storeRecordedBits()
    guard let bitmap = try bitmapDirectory().bitmap(named: name) else { throw BitmapEditor.notFound(name) }
    try BitmapEditor.requireConsistent(bitmap.record)
    try bitmap.requireKnownContent()
    let header = state.withLock { $0.prologue.header }
    let table = try Qcow2BitmapTable(bitmap, geometry, from: file)
    try table.forEachDirtyRun(bitmap.granularityBits, header, from: file, body)
  }
}

extension Qcow2State {
  fileprivate func record(of bitmap: Qcow2Bitmap) -> BitmapRecord {
    var record = bitmap.record
    // In the file they are in use by this very layer.
    if let recorder, recorder.covers(bitmap) { record.isInconsistent = false }
    return record
  }
}

extension Qcow2Layer: BitmapChanging {
  var bitmapRules: BitmapRules {
    let version = state.withLock { $0.prologue.header.version }
    return BitmapRules(
      refusal: version < 3 ? "Cannot store dirty bitmaps in qcow2 v2 files" : nil,
      maximumCount: Int(Qcow2BitmapLimits.count), maximumNameLength: Qcow2BitmapLimits.nameLength,
      granularityBits: Qcow2BitmapLimits.granularityBits,
      // A cluster, but not less than 4 KiB and not more than 64 KiB: qemu-img's choice.
      defaultGranularityBits: min(max(geometry.clusterBits, 12), 16),
      maximumByteCount: Qcow2BitmapLimits.byteCount)
  }

  func changeBitmaps(_ body: (inout BitmapEditor) throws(EngineError) -> Void) throws(EngineError) {
    try storeRecordedBits()
    let old = try bitmapDirectory()
    var editor = BitmapEditor(old.bitmaps.map(\.record), of: self, bitmapRules)
    try body(&editor)
    guard !editor.isUnchanged(from: old.bitmaps.map(\.record)) else { return }
    let entries = editor.entries
    try rewrite { (rewrite) throws(EngineError) in
      try rewrite.storeBitmaps(entries, replacing: old)
    }
  }
}

extension Qcow2Layer {
  /// A bitmap in the format's own part of `info`.
  static func info(_ record: BitmapRecord) -> InfoValue {
    let flags = (record.isInconsistent ? ["in-use"] : []) + (record.isEnabled ? ["auto"] : [])
    return .record([
      InfoField("flags", .list(flags.map(InfoValue.text))), InfoField("name", .text(record.name)),
      InfoField("granularity", .integer(Int64(record.granularity))),
    ])
  }
}
