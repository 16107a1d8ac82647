/// The checksum of footers and dynamic disk headers: the complement of the sum of all bytes but its own
/// (VHD 1.0, "Checksum").
enum VPCChecksum {
  /// Of a structure whose checksum stands at `field`.
  static func of(_ bytes: [UInt8], field: Int) -> UInt32 {
    var sum: UInt32 = 0
    for (index, byte) in bytes.enumerated() where index < field || index >= field + 4 {
      sum &+= UInt32(byte)
    }
    return ~sum
  }

  static func isRight(_ bytes: [UInt8], field: Int) throws(EngineError) -> Bool {
    let stored = try bytes.parsed { (span) throws(EngineError) in try span.bigEndian(UInt32.self, at: field) }
    return stored == of(bytes, field: field)
  }
}
