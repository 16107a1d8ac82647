/// A store in memory: for tests, and for files whose changes must not reach their disk.
public final class MemoryStore: ByteStore {
  private let content: Guarded<[UInt8]>
  public let isWritable = true

  public init(_ bytes: [UInt8] = []) { content = Guarded(bytes) }

  public var spliceDescriptor: CInt? { nil }
  public var snapshot: [UInt8] { content.withLock { $0 } }

  public func byteCount() throws(EngineError) -> UInt64 { content.withLock { UInt64($0.count) } }
  public func allocatedByteCount() throws(EngineError) -> UInt64 { try byteCount() }

  public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(EngineError) {
    unsafe buffer.initializeMemory(as: UInt8.self, repeating: 0)
    content.withLock { bytes in
      guard offset < UInt64(bytes.count) else { return }
      let count = min(buffer.count, bytes.count - Int(offset))
      // SAFETY: `count` is bounded by both sides.
      unsafe bytes.withUnsafeBytes { raw in
        unsafe buffer.copyMemory(
          from: UnsafeRawBufferPointer(rebasing: raw[Int(offset)..<Int(offset) + count]))
      }
    }
  }

  public func write(_ source: UnsafeRawBufferPointer, at offset: UInt64) throws(EngineError) {
    let end = try limit(offset, UInt64(source.count))
    content.withLock { bytes in
      Self.grow(&bytes, to: end)
      // SAFETY: `end` is `source.count` bytes after `offset`.
      unsafe bytes.withUnsafeMutableBytes { raw in
        unsafe UnsafeMutableRawBufferPointer(rebasing: raw[Int(offset)..<end]).copyMemory(from: source)
      }
    }
  }

  public func writeZeros(at offset: UInt64, count: UInt64, freeing: Bool) throws(EngineError) {
    let end = try limit(offset, count)
    content.withLock { bytes in
      Self.grow(&bytes, to: end)
      // SAFETY: `end` is `count` bytes after `offset`.
      unsafe bytes.withUnsafeMutableBytes { raw -> Void in
        unsafe UnsafeMutableRawBufferPointer(rebasing: raw[Int(offset)..<end])
          .initializeMemory(as: UInt8.self, repeating: 0)
      }
    }
  }

  public func forget(at offset: UInt64, count: UInt64) {
    content.withLock { bytes in
      guard offset < UInt64(bytes.count) else { return }
      let inside = Int(min(count, UInt64(bytes.count) - offset))
      // SAFETY: `inside` bytes from `offset` on are in the array.
      unsafe bytes.withUnsafeMutableBytes { raw -> Void in
        unsafe UnsafeMutableRawBufferPointer(rebasing: raw[Int(offset)..<Int(offset) + inside])
          .initializeMemory(as: UInt8.self, repeating: 0)
      }
    }
  }

  public func resize(to byteCount: UInt64) throws(EngineError) {
    let end = try limit(byteCount, 0)
    content.withLock { bytes in
      if bytes.count > end {
        bytes.removeLast(bytes.count - end)
      } else {
        Self.grow(&bytes, to: end)
      }
    }
  }

  /// With zeros; an array at once, because tests are built without optimization.
  private static func grow(_ bytes: inout [UInt8], to count: Int) {
    if bytes.count < count { bytes += [UInt8](repeating: 0, count: count - bytes.count) }
  }

  public func flush() throws(EngineError) {}

  public func run(at offset: UInt64, limit: UInt64) throws(EngineError) -> StoredRun {
    let count = try byteCount()
    guard offset < count else { return StoredRun(isData: false, length: limit) }
    return StoredRun(isData: true, length: min(limit, count - offset))
  }

  /// 4 GiB: enough for any test, and a wrong offset does not eat the machine.
  private func limit(_ offset: UInt64, _ count: UInt64) throws(EngineError) -> Int {
    guard offset <= 4 * GiB, count <= 4 * GiB else {
      throw EngineError(.tooLarge, "A store in memory has at most 4 GiB")
    }
    return Int(offset + count)
  }
}
