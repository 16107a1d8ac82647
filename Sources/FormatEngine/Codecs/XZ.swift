internal import CLzma

/// Unpacks xz streams whose unpacked size is known.
enum XZ {
  /// The largest dictionary of the presets is 64 MiB; streams that want more are made to do harm.
  private static let memoryLimit = 80 * MiB

  /// Fills `target` from the stream that begins `source`, whose checksums must be right; what follows it is not
  /// looked at.
  static func unpack(_ source: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    var limit = memoryLimit
    var (consumed, produced) = (0, 0)
    let result = unsafe lzma_stream_buffer_decode(
      &limit, 0, nil, source.bindMemory(to: UInt8.self).baseAddress, &consumed, source.count,
      target.bindMemory(to: UInt8.self).baseAddress, &produced, target.count)
    guard result == LZMA_OK, produced == target.count else {
      throw .corrupt("An xz stream is damaged, or has not the size that it should")
    }
  }
}
