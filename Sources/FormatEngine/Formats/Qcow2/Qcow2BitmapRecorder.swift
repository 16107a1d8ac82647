import Synchronization

/// What a session writes, for the bitmaps that are enabled. Lives in its layer's lock.
///
/// While it is at work the image says of those bitmaps that they are in use, so that a crash leaves them
/// inconsistent (qcow2.txt, "Bitmap directory"); disabled ones stay as they are.
struct Qcow2BitmapRecorder {
  /// At the finest granularity of all: coarser bits follow from it.
  private var dirty: DirtyBits
  /// The bitmaps that it records for.
  private let names: Set<[UInt8]>

  /// Nil where no bitmap is enabled.
  init?(_ directory: Qcow2BitmapDirectory, virtualSize: UInt64) {
    let recording = directory.bitmaps.filter(\.isRecording)
    guard let finest = recording.map(\.granularityBits).min() else { return nil }
    dirty = DirtyBits(granularityBits: finest, virtualSize: virtualSize)
    names = Set(recording.map(\.nameBytes))
  }

  mutating func note(_ bytes: Range<UInt64>) { dirty.insert(bytes) }

  func covers(_ bitmap: Qcow2Bitmap) -> Bool { names.contains(bitmap.nameBytes) }

  /// What was recorded, for a bitmap of this granularity, which is not finer than all.
  func bits(granularityBits: UInt64) throws(EngineError) -> DirtyBits {
    guard granularityBits != dirty.granularityBits else { return dirty }
    var bits = DirtyBits(granularityBits: granularityBits, virtualSize: dirty.virtualSize)
    try dirty.forEachRun { (run) throws(EngineError) in bits.insert(run) }
    return bits
  }
}

extension Qcow2State {
  /// The list of bitmaps as it stands in the file, read once.
  mutating func bitmapDirectory() throws(EngineError) -> Qcow2BitmapDirectory {
    if let bitmapList { return bitmapList }
    let list = try Qcow2BitmapDirectory.read(prologue, from: file)
    bitmapList = list
    return list
  }

  /// Notes what a guest writes, before it is written.
  mutating func record(_ guestBytes: Range<UInt64>) throws(EngineError) {
    if !hasBegunRecording { try beginRecording() }
    recorder?.note(guestBytes)
  }

  /// Begins to record, where a bitmap is enabled: marked in the image before anything else changes.
  private mutating func beginRecording() throws(EngineError) {
    let directory = try bitmapDirectory()
    if let recorder = Qcow2BitmapRecorder(directory, virtualSize: prologue.header.virtualSize) {
      var marked = directory
      for index in marked.bitmaps.indices where marked.bitmaps[index].isRecording {
        try marked.bitmaps[index].requireKnownContent()
        marked.bitmaps[index].flags.insert(.inUse)
      }
      // In its place: the one bit of each entry that changes is right however much of this arrives.
      try file.write(bytes: marked.serialised(), at: directory.place.lowerBound)
      bitmapList = nil
      try file.flush()
      self.recorder = recorder
    }
    hasBegunRecording = true
  }
}

extension Qcow2Layer {
  func bitmapDirectory() throws(EngineError) -> Qcow2BitmapDirectory {
    try state.withLock { (state) throws(EngineError) in try state.bitmapDirectory() }
  }

  /// Stores what was recorded since the first write; the next write begins anew. Nothing may be written
  /// to the disk meanwhile.
  func storeRecordedBits() throws(EngineError) {
    guard let recorder = state.withLock({ $0.recorder }) else { return }
    let old = try bitmapDirectory()
    try rewrite { (rewrite) throws(EngineError) in try rewrite.storeBits(of: recorder, in: old) }
    state.withLock { ($0.recorder, $0.hasBegunRecording) = (nil, false) }
  }
}
