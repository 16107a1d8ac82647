/// Apple Data Compression: runs of literals, and repetitions with one of two lengths of address.
///
/// | first byte | more bytes | meaning                                                                    |
/// |------------|------------|----------------------------------------------------------------------------|
/// | 1nnnnnnn   | n + 1      | that many bytes as they are                                                |
/// | 00nnnndd   | 1          | n + 3 bytes from distance dd:byte + 1                                      |
/// | 01nnnnnn   | 2          | n + 4 bytes from distance of both bytes (big-endian) + 1                   |
enum ADC {
  /// Fills `target` from the stream that begins `source`; what follows is not looked at.
  static func unpack(_ source: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    var input = unsafe PackedBytes(source)
    var output = unsafe UnpackedBytes(target)
    while output.room > 0 {
      let code = try input.byte()
      if code & 0x80 != 0 {
        try output.copy(Int(code & 0x7f) + 1, from: &input)
      } else if code & 0x40 != 0 {
        let high = Int(try input.byte())
        let low = Int(try input.byte())
        try output.repeat(Int(code & 0x3f) + 4, distance: (high << 8 | low) + 1)
      } else {
        let low = Int(try input.byte())
        try output.repeat(Int(code >> 2) + 3, distance: (Int(code & 3) << 8 | low) + 1)
      }
    }
  }
}
