/// Bytes at fixed places: a file, a block device, memory. Any thread may call any method at any time.
public protocol ByteStore: AnyObject, Sendable {
  func byteCount() throws(EngineError) -> UInt64
  /// Bytes that the store takes on its host, for `disk size`.
  func allocatedByteCount() throws(EngineError) -> UInt64
  /// Fills all of `buffer`. Bytes past the end of the store read as zeros.
  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(EngineError)
  /// Writes all of `bytes`; the store grows where they go past its end.
  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(EngineError)
  /// Makes a range read as zeros; `freeing` lets go of its room on the host where that is possible.
  func writeZeros(at offset: UInt64, count: UInt64, freeing: Bool) throws(EngineError)
  /// Nobody will read these bytes again before they are written: their room on the host is let go of where
  /// that is possible. What is read there afterwards is not said.
  func forget(at offset: UInt64, count: UInt64)
  func resize(to byteCount: UInt64) throws(EngineError)
  /// What was written before is on disk when it returns.
  func flush() throws(EngineError)
  /// The run of data, or of hole, that starts at `offset` (SEEK_DATA, SEEK_HOLE). Past the end: a hole.
  func run(at offset: UInt64, limit: UInt64) throws(EngineError) -> StoredRun
  /// A descriptor that FUSE may splice from, if there is one.
  var spliceDescriptor: CInt? { get }
  var isWritable: Bool { get }
  /// Whether it takes bytes from front to back only: a pipe.
  var isSequential: Bool { get }
  /// The same bytes, by which formats read and write what guests see: stores for tests tell that from their
  /// tables.
  var guestBytes: any ByteStore { get }
}

/// A run of bytes that a store has room for, or has not.
public struct StoredRun: BitwiseCopyable, Equatable, Sendable {
  public var isData: Bool
  /// At most the limit that was asked for, never 0.
  public var length: UInt64

  public init(isData: Bool, length: UInt64) {
    self.isData = isData
    self.length = length
  }
}

public enum FileAccess: Sendable, Equatable {
  case readOnly
  case readWrite
}

extension ByteStore {
  public var guestBytes: any ByteStore { self }
  public var isSequential: Bool { false }

  /// `count` bytes as an array: for metadata, not for the data path.
  public func bytes(at offset: UInt64, count: Int) throws(EngineError) -> [UInt8] {
    unsafe try [UInt8](count: count) { (buffer) throws(EngineError) in
      unsafe try read(into: buffer, at: offset)
    }
  }

  /// Writes an array: for metadata, not for the data path.
  public func write(bytes: [UInt8], at offset: UInt64) throws(EngineError) {
    var failure: EngineError?
    unsafe bytes.withUnsafeBytes { raw in
      do throws(EngineError) { unsafe try write(raw, at: offset) } catch { failure = error }
    }
    if let failure { throw failure }
  }
}

extension [UInt8] {
  /// `count` bytes that `fill` gives: it fills the whole buffer or throws.
  init(count: Int, _ fill: (UnsafeMutableRawBufferPointer) throws(EngineError) -> Void) throws(EngineError) {
    var failure: EngineError?
    unsafe self.init(unsafeUninitializedCapacity: count) { buffer, initialized in
      do throws(EngineError) {
        unsafe try fill(UnsafeMutableRawBufferPointer(buffer))
        initialized = count
      } catch { failure = error }
    }
    if let failure { throw failure }
  }
}
