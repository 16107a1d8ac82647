/// For queues of the kernel, which move bytes by the descriptor.
extension FileStore {
  /// Whether it was opened to be read and written past the host's page cache.
  var isDirect: Bool { direct != nil }

  /// The descriptor by which a queue may move these bytes from or to this memory by itself; nil where only `read` and
  /// `write` can.
  func queueDescriptor(_ memory: UnsafeRawBufferPointer, at offset: UInt64, isWrite: Bool) -> CInt? {
    guard offset <= maximumFileOffset - UInt64(memory.count) else { return nil }
    if let direct, unsafe !direct.takesWhole(memory, at: offset, isWrite: isWrite) { return nil }
    return descriptor.number
  }

  /// Somebody wrote through that descriptor: it is on disk after the next flush, if it is not yet.
  func noteWrite() { if !cache.writesThrough { noteChange() } }
}
