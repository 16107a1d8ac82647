internal import CDeflate

/// Unpacks zlib streams (RFC 1950) whose unpacked size is known. Belongs to one thread at a time.
@safe final class ZlibStreamUnpacker: @unchecked Sendable {
  // @unchecked: ContextPool hands it to one thread at a time.
  private let context: OpaquePointer

  init() throws(EngineError) {
    guard let context = unsafe libdeflate_alloc_decompressor() else {
      throw EngineError(.system(errno: 12), "No memory for a deflate context")
    }
    unsafe self.context = context
  }

  deinit { unsafe libdeflate_free_decompressor(context) }

  /// Fills `target` from the stream that begins `source`, whose checksum must be right; what follows the stream is
  /// not looked at.
  func unpack(_ source: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    var consumed = 0
    var produced = 0
    let result = unsafe libdeflate_zlib_decompress_ex(
      context, source.baseAddress, source.count, target.baseAddress, target.count, &consumed, &produced)
    guard result == LIBDEFLATE_SUCCESS, produced == target.count else {
      throw .corrupt("A zlib stream is damaged, or has not the size that it should")
    }
  }
}

/// Packs units as zlib streams. Belongs to one thread.
@safe final class ZlibStreamPacker: ClusterPacker {
  private let context: OpaquePointer

  /// `level`: 1 (fast) to 12 (small).
  init(level: Int) throws(EngineError) {
    guard let context = unsafe libdeflate_alloc_compressor(CInt(level)) else {
      throw EngineError(.system(errno: 12), "No memory for a deflate context")
    }
    unsafe self.context = context
  }

  deinit { unsafe libdeflate_free_compressor(context) }

  func pack(_ source: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer) throws(EngineError)
    -> Int?
  {
    let count = unsafe libdeflate_zlib_compress(
      context, source.baseAddress, source.count, target.baseAddress, target.count)
    return count == 0 ? nil : count
  }
}
