internal import CZstd

/// Unpacks zstd frames (RFC 8878) whose unpacked size is known. Belongs to one thread at a time.
@safe final class ZstandardUnpacker: @unchecked Sendable {
  // @unchecked: ContextPool hands it to one thread at a time.
  private let context: OpaquePointer

  init() throws(EngineError) {
    guard let context = unsafe ZSTD_createDCtx() else {
      throw EngineError(.system(errno: 12), "No memory for a zstd context")
    }
    unsafe self.context = context
  }

  deinit { unsafe _ = ZSTD_freeDCtx(context) }

  /// Fills `target` from the frames that begin `source`; what follows them is not looked at.
  func unpack(_ source: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    var consumed = 0
    var produced = 0
    while produced < target.count {
      guard let input = source.baseAddress, let output = target.baseAddress else { break }
      // SAFETY: both positions stay at or below their buffer's count.
      let frame = unsafe ZSTD_findFrameCompressedSize(input + consumed, source.count - consumed)
      guard ZSTD_isError(frame) == 0 else { break }
      let count = unsafe ZSTD_decompressDCtx(
        context, output + produced, target.count - produced, input + consumed, frame)
      guard ZSTD_isError(count) == 0, count > 0 else { break }
      produced += count
      consumed += frame
    }
    guard produced == target.count else { throw .corrupt("Compressed cluster is damaged") }
  }
}

/// Packs units as zstd frames. Belongs to one thread.
@safe final class ZstandardPacker: ClusterPacker {
  private let context: OpaquePointer

  /// `level`: 1 (fast) to 22 (small).
  init(level: Int) throws(EngineError) {
    guard let context = unsafe ZSTD_createCCtx() else {
      throw EngineError(.system(errno: 12), "No memory for a zstd context")
    }
    unsafe self.context = context
    unsafe _ = ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, CInt(level))
  }

  deinit { unsafe _ = ZSTD_freeCCtx(context) }

  func pack(_ source: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer) throws(EngineError)
    -> Int?
  {
    let count = unsafe ZSTD_compress2(
      context, target.baseAddress, target.count, source.baseAddress, source.count)
    return ZSTD_isError(count) == 0 && count > 0 ? count : nil
  }
}
