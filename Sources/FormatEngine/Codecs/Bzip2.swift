internal import CBzip2

/// Unpacks bzip2 streams whose unpacked size is known.
enum Bzip2 {
  /// Fills `target` from the stream that begins `source`, whose checksums must be right; what follows it is not
  /// looked at. Both are below 2 GiB.
  static func unpack(_ source: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    var stream = unsafe bz_stream()
    guard unsafe BZ2_bzDecompressInit(&stream, 0, 0) == BZ_OK else {
      throw EngineError(.system(errno: 12), "No memory for a bzip2 context")
    }
    defer { unsafe _ = BZ2_bzDecompressEnd(&stream) }
    unsafe stream.next_in = UnsafeMutablePointer(mutating: source.bindMemory(to: CChar.self).baseAddress)
    unsafe stream.avail_in = UInt32(source.count)
    unsafe stream.next_out = target.bindMemory(to: CChar.self).baseAddress
    unsafe stream.avail_out = UInt32(target.count)
    var result = BZ_OK
    // A call that gets nowhere needs bytes that are not there, or room.
    while result == BZ_OK {
      let (before, room) = unsafe (stream.avail_in, stream.avail_out)
      result = unsafe BZ2_bzDecompress(&stream)
      if unsafe stream.avail_in == before && stream.avail_out == room { break }
    }
    guard result == BZ_STREAM_END, unsafe stream.avail_out == 0 else {
      throw .corrupt("A bzip2 stream is damaged, or has not the size that it should")
    }
  }
}
