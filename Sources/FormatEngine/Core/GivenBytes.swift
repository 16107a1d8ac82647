/// Bytes to be written: in memory, in a file of the host that nobody changes, or both.
@safe struct GivenBytes {
  let count: Int
  /// Nil where they are in a file only.
  let memory: UnsafeRawBufferPointer?
  private let place: HostPlace?
  private let method: HostCopy

  /// `place`: where they lie, too, if what they are written to may share its blocks.
  init(_ memory: UnsafeRawBufferPointer, sharedWith place: HostPlace? = nil) {
    unsafe self.memory = memory
    count = memory.count
    self.place = place
    method = .blocks
  }

  /// What the host is to copy.
  init(at place: HostPlace, count: Int, by method: HostCopy) {
    unsafe memory = nil
    self.count = count
    self.place = place
    self.method = method
  }

  private init(_ whole: GivenBytes, _ range: Range<Int>) {
    // SAFETY: callers give ranges inside of the whole.
    unsafe memory = unsafe whole.memory.map { unsafe UnsafeRawBufferPointer(rebasing: $0[range]) }
    count = range.count
    place = whole.place?.advanced(by: range.lowerBound)
    method = whole.method
  }

  /// A part of them; `range` must lie inside.
  func piece(_ range: Range<Int>) -> GivenBytes { GivenBytes(self, range) }

  func write(to store: any ByteStore, at offset: UInt64) throws(EngineError) {
    if let place, let file = store as? FileStore {
      return unsafe try file.write(from: place, memory, at: offset, count: count, by: method)
    }
    guard let memory = unsafe memory else {
      throw .unsupported("The host copies from file to file only")
    }
    unsafe try store.write(memory, at: offset)
  }
}
