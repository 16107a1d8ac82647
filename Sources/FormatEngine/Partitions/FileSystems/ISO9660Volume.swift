/// ISO 9660: volume descriptors of 2048 bytes from 32 KiB on (ECMA-119, "Volume Descriptors").
///
///      0       type: 1 primary, 2 supplementary, 255 the end      813 - 829  when it was made
///      1 -  5  "CD001"                                            830 - 846  when it was changed
///     40 - 71  label; in UTF-16, big-endian, with Joliet
///     88 - 90  with Joliet: %/@, %/C or %/E
///
/// Its UUID is a date, with dashes: that of the last change, else that of the making.
enum ISO9660Volume: FileSystemSignature {
  private static let start = 32 * KiB
  private static let byteCount = 2048
  private static let maximumDescriptorCount = 16
  private static let signature = Array("CD001".utf8)
  private static let jolietEscapes = ["%/@", "%/C", "%/E"].map { Array($0.utf8) }
  /// Year, month, day, hour, minute, second, hundredths.
  private static let dateGroups = [4, 2, 2, 2, 2, 2, 2]

  static func identify(_ window: DiskWindow) throws(EngineError) -> FileSystemIdentity? {
    var primary: [UInt8]?
    var joliet: [UInt8]?
    for index in 0..<maximumDescriptorCount {
      guard let bytes = try? window.bytes(at: start + UInt64(index * byteCount), count: byteCount),
        Array(bytes[1..<6]) == signature, bytes[0] != 255
      else { break }
      if bytes[0] == 1, primary == nil { primary = bytes }
      if bytes[0] == 2, joliet == nil, jolietEscapes.contains(Array(bytes[88..<91])) { joliet = bytes }
    }
    guard let primary else { return nil }
    let date = date(primary[830..<847]) ?? date(primary[813..<830])
    return FileSystemIdentity(type: "iso9660", label: label(primary, joliet), uuid: date)
  }

  /// Joliet has room for 16 characters only: where the primary one goes on from there, it is the longer name.
  private static func label(_ primary: [UInt8], _ joliet: [UInt8]?) -> String? {
    let plain = IdentifierText.label(primary[40..<72])
    guard let joliet else { return plain }
    let units = stride(from: 40, to: 72, by: 2).map { UInt16(joliet[$0]) << 8 | UInt16(joliet[$0 + 1]) }
    guard let wide = IdentifierText.label(utf16: units) else { return plain }
    guard let plain, plain.utf8.count > units.count, wide.utf16.count == units.count else { return wide }
    let isSame = zip(wide.unicodeScalars, plain.unicodeScalars).allSatisfy { $0 == $1 || $1 == "_" }
    return isSame ? wide + String(plain.unicodeScalars.dropFirst(wide.unicodeScalars.count)) : wide
  }

  /// Sixteen digits, and the zone as a number; nil where all is zero.
  private static func date(_ field: ArraySlice<UInt8>) -> String? {
    let digits = field.prefix(16)
    guard digits.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }),
      digits.contains(where: { $0 != UInt8(ascii: "0") }) || field.last != 0
    else { return nil }
    return IdentifierText.grouped(digits, dateGroups)
  }
}
