/// The file of a raw disk that nothing but its own first bytes says to be raw. Whoever writes to the disk - a guest,
/// mostly - must not be able to turn it into an image of another format, which could name any file of the host
/// (CVE-2008-2004): such writes fail, and nothing of them is written.
final class ProbedDiskStore: ByteStore {
  /// Where the first bytes, by which a format is known, end.
  private static let headEnd = UInt64(FormatCatalog.probedByteCount)

  private let file: any ByteStore
  private let path: String
  /// Held while the head changes, its few bytes being written included: of two writes each may be harmless that are
  /// not so together.
  private let head: Head

  private final class Head: Sendable { let lock = Guarded<Void>(()) }

  convenience init(_ file: any ByteStore, path: String) { self.init(file, path: path, Head()) }

  private init(_ file: any ByteStore, path: String, _ head: Head) {
    self.file = file
    self.path = path
    self.head = head
  }

  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(EngineError) {
    guard offset < Self.headEnd, unsafe !bytes.isEmpty else {
      return unsafe try file.write(bytes, at: offset)
    }
    let inHead = min(bytes.count, Int(Self.headEnd - offset))
    // SAFETY: `inHead` is at most the buffer's count.
    let first = unsafe UnsafeRawBufferPointer(rebasing: bytes[..<inHead])
    try changeHead(at: offset, to: unsafe Array(first)) { () throws(EngineError) in
      unsafe try file.write(first, at: offset)
    }
    guard inHead < bytes.count else { return }
    let rest = unsafe UnsafeRawBufferPointer(rebasing: bytes[inHead...])
    unsafe try file.write(rest, at: offset + UInt64(inHead))
  }

  /// Zeros can end what kept a magic from being one: a version of its number, say.
  func writeZeros(at offset: UInt64, count: UInt64, freeing: Bool) throws(EngineError) {
    guard offset < Self.headEnd, count > 0 else {
      return try file.writeZeros(at: offset, count: count, freeing: freeing)
    }
    let zeros = [UInt8](repeating: 0, count: Int(min(count, Self.headEnd - offset)))
    try changeHead(at: offset, to: zeros) { () throws(EngineError) in
      try file.writeZeros(at: offset, count: count, freeing: freeing)
    }
  }

  /// Runs `change` where the head that it makes is still nobody's.
  private func changeHead(
    at offset: UInt64, to new: [UInt8], _ change: () throws(EngineError) -> Void
  ) throws(EngineError) {
    try head.lock.withLock { _ throws(EngineError) in
      let end = offset + UInt64(new.count)
      var bytes = try file.bytes(at: 0, count: Int(min(max(try file.byteCount(), end), Self.headEnd)))
      bytes.replaceSubrange(Int(offset)..<Int(end), with: new)
      let format = try bytes.parsed { (span) throws(EngineError) in FormatCatalog.probe(span, path: path) }
      guard format.name == FormatCatalog.plain.name else {
        throw .notPermitted(
          "The write would make an image of the format \(format.name) of '\(path)', which was probed as raw",
          path: path)
      }
      try change()
    }
  }

  /// Of the head nothing is let go of: it might read as zeros then.
  func forget(at offset: UInt64, count: UInt64) {
    let start = max(offset, Self.headEnd)
    let (end, overflow) = offset.addingReportingOverflow(count)
    if !overflow && end > start { file.forget(at: start, count: end - start) }
  }

  var guestBytes: any ByteStore { ProbedDiskStore(file.guestBytes, path: path, head) }

  // MARK: As the file has it

  var isWritable: Bool { file.isWritable }
  var spliceDescriptor: CInt? { file.spliceDescriptor }
  func byteCount() throws(EngineError) -> UInt64 { try file.byteCount() }
  func allocatedByteCount() throws(EngineError) -> UInt64 { try file.allocatedByteCount() }
  func resize(to byteCount: UInt64) throws(EngineError) { try file.resize(to: byteCount) }
  func flush() throws(EngineError) { try file.flush() }

  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(EngineError) {
    unsafe try file.read(into: buffer, at: offset)
  }

  func run(at offset: UInt64, limit: UInt64) throws(EngineError) -> StoredRun {
    try file.run(at: offset, limit: limit)
  }
}
