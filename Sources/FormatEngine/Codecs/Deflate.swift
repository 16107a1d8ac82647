internal import CDeflate
internal import CZlib

/// What stands around deflated bytes.
enum DeflateFraming: Sendable {
  /// Nothing (RFC 1951).
  case raw
  /// A header, and a checksum behind them (RFC 1950).
  case zlib
}

/// Unpacks deflated bytes whose unpacked size is known. Belongs to one thread at a time.
@safe final class DeflateUnpacker: @unchecked Sendable {
  // @unchecked: ContextPool hands it to one thread at a time.
  private let context: OpaquePointer
  private let framing: DeflateFraming

  init(_ framing: DeflateFraming) throws(EngineError) {
    self.framing = framing
    guard let context = unsafe libdeflate_alloc_decompressor() else {
      throw EngineError(.system(errno: 12), "No memory for a deflate context")
    }
    unsafe self.context = context
  }

  deinit { unsafe libdeflate_free_decompressor(context) }

  /// Fills `target` from the stream that begins `source`, whose checksum, if it has one, must be right; what follows
  /// the stream is not looked at.
  func unpack(_ source: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    var consumed = 0
    var produced = 0
    let unpack =
      switch framing {
      case .raw: unsafe libdeflate_deflate_decompress_ex
      case .zlib: unsafe libdeflate_zlib_decompress_ex
      }
    let result = unsafe unpack(
      context, source.baseAddress, source.count, target.baseAddress, target.count, &consumed, &produced)
    if result == LIBDEFLATE_SUCCESS && produced == target.count { return }
    switch framing {
    case .raw:
      // Some writers leave the stream without its end, or let it run on past the cluster.
      guard unsafe unpackOpenStream(source, into: target) else {
        throw .corrupt("Compressed cluster is damaged")
      }
    case .zlib: throw .corrupt("A zlib stream is damaged, or has not the size that it should")
    }
  }

  /// The same by zlib, which stops as soon as the target is full.
  private func unpackOpenStream(
    _ source: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer
  ) -> Bool {
    var stream = unsafe z_stream()
    guard unsafe inflateInit2_(&stream, -15, ZLIB_VERSION, CInt(MemoryLayout<z_stream>.size)) == Z_OK else {
      return false
    }
    defer { unsafe inflateEnd(&stream) }
    unsafe stream.next_in = UnsafeMutablePointer(mutating: source.bindMemory(to: UInt8.self).baseAddress)
    unsafe stream.avail_in = UInt32(source.count)
    unsafe stream.next_out = target.bindMemory(to: UInt8.self).baseAddress
    unsafe stream.avail_out = UInt32(target.count)
    let result = unsafe inflate(&stream, Z_FINISH)
    return unsafe (result == Z_STREAM_END || result == Z_BUF_ERROR) && stream.avail_out == 0
  }
}

/// Packs units as raw deflate streams that look back less far than usual, for formats whose readers keep less.
/// Belongs to one thread.
@safe final class SmallWindowPacker: ClusterPacker {
  private var stream = unsafe z_stream()

  /// `windowBits`: 9 to 15, the bytes to look back as a power of two.
  init(windowBits: CInt) throws(EngineError) {
    let result = unsafe deflateInit2_(
      &stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -windowBits, 9, Z_DEFAULT_STRATEGY, ZLIB_VERSION,
      CInt(MemoryLayout<z_stream>.size))
    guard result == Z_OK else { throw EngineError(.system(errno: 12), "No memory for a deflate context") }
  }

  deinit { unsafe deflateEnd(&stream) }

  func pack(_ source: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer) throws(EngineError)
    -> Int?
  {
    unsafe deflateReset(&stream)
    unsafe stream.next_in = UnsafeMutablePointer(mutating: source.bindMemory(to: UInt8.self).baseAddress)
    unsafe stream.avail_in = UInt32(source.count)
    unsafe stream.next_out = target.bindMemory(to: UInt8.self).baseAddress
    unsafe stream.avail_out = UInt32(target.count)
    guard unsafe deflate(&stream, Z_FINISH) == Z_STREAM_END else { return nil }
    return target.count - Int(unsafe stream.avail_out)
  }
}
