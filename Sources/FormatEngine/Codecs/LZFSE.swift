/// Apple's LZFSE: blocks of literals and repetitions, coded by finite state entropy (FSE) or by LZVN.
///
/// A stream is blocks one after the other, each with a magic in its first four bytes, little-endian:
///
/// | magic | block                                                                    |
/// |-------|--------------------------------------------------------------------------|
/// | bvx-  | byte count (4), the bytes as they are                                    |
/// | bvxn  | unpacked bytes (4), packed bytes (4), LZVN codes                         |
/// | bvx1  | FSE with plain tables                                                    |
/// | bvx2  | FSE with packed tables                                                   |
/// | bvx$  | the end                                                                  |
///
/// Repetitions may reach back into earlier blocks.
enum LZFSE {
  private enum Magic {
    static let end: UInt32 = 0x2478_7662
    static let plain: UInt32 = 0x2d78_7662
    static let plainTables: UInt32 = 0x3178_7662
    static let packedTables: UInt32 = 0x3278_7662
    static let lzvn: UInt32 = 0x6e78_7662
  }

  /// Fills `target` from the stream that begins `source`; what follows its end is not looked at.
  static func unpack(_ source: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    var input = unsafe PackedBytes(source)
    var output = unsafe UnpackedBytes(target)
    while true {
      let magic = try input.littleEndian(UInt32.self)
      if magic == Magic.end { break }
      let byteCount = Int(try input.littleEndian(UInt32.self))
      let end = output.count + byteCount
      switch magic {
      case Magic.plain: try output.copy(byteCount, from: &input)
      case Magic.lzvn:
        var packed = try input.take(Int(try input.littleEndian(UInt32.self)))
        try LZVN.unpack(&packed, into: &output)
      case Magic.plainTables:
        let header = try LZFSEBlockHeader(plain: &input, unpackingTo: byteCount)
        try header.unpack(&input, into: &output)
      case Magic.packedTables:
        let header = try LZFSEBlockHeader(packed: &input, unpackingTo: byteCount)
        try header.unpack(&input, into: &output)
      default: throw .corrupt("An LZFSE stream has an unknown block")
      }
      guard output.count == end else {
        throw .corrupt("An LZFSE block has another size than it says")
      }
    }
    guard output.room == 0 else { throw .corrupt("An LZFSE stream unpacks to less than it should") }
  }
}
