/// Reads and writes that the kernel carries out while the thread that handed them in goes on. It belongs to that
/// one thread. Memory must stay until what it was given for is done.
protocol KernelQueue: AnyObject {
  /// Takes note of a read of `buffer.count` bytes, at most 2^31 - 1; `submit` or `wait` hands it in.
  func read(_ descriptor: CInt, into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64, tag: Int)
    throws(EngineError)
  /// As `read`.
  func write(_ descriptor: CInt, _ bytes: UnsafeRawBufferPointer, at offset: UInt64, tag: Int)
    throws(EngineError)
  /// Is done once, with this tag, when there is something to read from `descriptor`.
  func watch(_ descriptor: CInt, tag: Int) throws(EngineError)
  /// Hands in what was taken note of.
  func submit() throws(EngineError)
  /// The same, then waits until something is done. Calls `body` for each thing that is: its tag, and the bytes that
  /// were moved or a negative `errno`.
  func wait(_ body: (_ tag: Int, _ result: Int) -> Void) throws(EngineError)
}
