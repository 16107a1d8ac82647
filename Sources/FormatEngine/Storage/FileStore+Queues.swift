extension FileStore {
  /// The descriptor by which a queue of the kernel may move these bytes from or to this memory by itself; nil where
  /// only `read` and `write` can.
  func queueDescriptor(_ memory: UnsafeRawBufferPointer, at offset: UInt64) -> CInt? {
    offset <= maximumFileOffset - UInt64(memory.count) ? spliceDescriptor : nil
  }

  var isDirect: Bool { false }
}
