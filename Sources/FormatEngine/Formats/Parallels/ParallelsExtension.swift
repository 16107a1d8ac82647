/// The format extension: a cluster of further features, of which dirty bitmaps are known (parallels.rst, "Format
/// Extension").
///
///      0-7   magic
///      8-23  MD5 of everything after it
///     24-    features
///
/// A feature; the next one begins at a multiple of 8 after its data, and one with magic 0 ends the list:
///
///      0-7   magic
///      8-15  flags
///     16-19  bytes of the data
///     24-    the data
struct ParallelsExtension {
  var bitmaps: [ParallelsBitmap] = []

  private static let magic: UInt64 = 0xab23_4cef_23dc_ea87
  private static let bitmapMagic: UInt64 = 0x2038_5fae_252c_b34a
  /// A file with a feature that has this flag and is not understood must not be changed.
  private static let necessaryFlag: UInt64 = 1
  private static let checkedFrom = 24
  private static let featureHeaderCount = 24
  /// Clusters with extensions have 1 MiB.
  private static let maximumByteCount = 64 * MiB

  /// Nil where the image has none.
  static func read(_ header: ParallelsHeader, from file: any ByteStore) throws(EngineError)
    -> ParallelsExtension?
  {
    guard header.extensionSector != 0 else { return nil }
    let bytes = try bytes(header, from: file)
    return try bytes.parsed { (span) throws(EngineError) in
      try parse(span, header) { (magic, flags) throws(EngineError) in
        guard magic == bitmapMagic else {
          throw .unsupported("Unknown feature: 0x\(String(magic, radix: 16))")
        }
        guard flags == 0 else { throw .unsupported("Flags for extension feature are unsupported") }
      }
    }
  }

  /// Throws where the file must not be changed by those who do not understand all of it. What cannot be read is
  /// dropped by the first write, as the specification has it.
  static func requireDroppable(_ header: ParallelsHeader, from file: any ByteStore) throws(EngineError) {
    guard header.extensionSector != 0, let bytes = try? bytes(header, from: file) else { return }
    var unknown: UInt64?
    _ = try? bytes.parsed { (span) throws(EngineError) in
      try parse(span, header) { (magic, flags) throws(EngineError) in
        if magic != bitmapMagic && flags & necessaryFlag != 0 { unknown = magic }
      }
    }
    if let unknown {
      throw .unsupported(
        "The image has a necessary feature that is not known here (0x\(String(unknown, radix: 16))), so it"
          + " is not changed")
    }
  }

  /// Whether there is one that nobody can read. What is only unknown here is none.
  static func isDamaged(_ header: ParallelsHeader, in file: any ByteStore) throws(EngineError) -> Bool {
    do throws(EngineError) {
      _ = try read(header, from: file)
      return false
    } catch {
      guard [.corrupt, .unsupported].contains(error.code) else { throw error }
      return error.code == .corrupt
    }
  }

  /// Host offsets of what the extension takes: its own cluster, and those of its bitmaps as far as they can be
  /// known.
  static func clusters(of header: ParallelsHeader, in file: any ByteStore) -> [UInt64] {
    guard header.extensionSector != 0, header.extensionSector <= maximumFileOffset / 512 else { return [] }
    let bitmaps = (try? read(header, from: file))??.bitmaps ?? []
    return [header.extensionSector * 512] + bitmaps.flatMap(\.clusters)
  }

  private static func bytes(_ header: ParallelsHeader, from file: any ByteStore) throws(EngineError)
    -> [UInt8]
  {
    let size = header.geometry.clusterSize
    guard header.extensionSector <= maximumFileOffset / 512,
      case let offset = header.extensionSector * 512, try offset < file.byteCount()
    else { throw .corrupt("Format Extension lies past the end of the image file") }
    guard size <= maximumByteCount else {
      throw .unsupported("Format Extensions of \(size) bytes are not read")
    }
    let bytes = try file.bytes(at: offset, count: Int(size))
    let found = try bytes.parsed { (span) throws(EngineError) in
      (magic: try span.littleEndian(UInt64.self, at: 0), digest: try span.bytes(in: 8..<checkedFrom))
    }
    guard found.magic == magic else {
      throw .corrupt(
        "Wrong parallels Format Extension magic: 0x\(String(found.magic, radix: 16)), expected: "
          + "0x\(String(magic, radix: 16))")
    }
    guard try HashAlgorithm.md5.digest(bytes[checkedFrom...]) == found.digest else {
      throw .corrupt("Wrong checksum in Format Extension header. Format extension is corrupted.")
    }
    return bytes
  }

  /// As in qcow2: no program has made more.
  private static let maximumBitmapCount = 65_535

  /// Reads the list of features; `admitting` throws for those that must not be passed over.
  private static func parse(
    _ span: RawSpan, _ header: ParallelsHeader,
    admitting: (_ magic: UInt64, _ flags: UInt64) throws(EngineError) -> Void
  ) throws(EngineError) -> ParallelsExtension {
    var result = ParallelsExtension()
    var position = checkedFrom
    while true {
      let rest = span.byteCount - position
      guard rest >= featureHeaderCount else {
        throw .corrupt(
          "Can not read feature header, as remaining bytes (\(rest)) in Format Extension is less than Feature "
            + "header size (\(featureHeaderCount))")
      }
      let magic = try span.littleEndian(UInt64.self, at: position)
      guard magic != 0 else { return result }
      try admitting(magic, try span.littleEndian(UInt64.self, at: position + 8))
      let byteCount = Int(try span.littleEndian(UInt32.self, at: position + 16))
      position += featureHeaderCount
      guard byteCount <= span.byteCount - position else {
        throw .corrupt("Feature data_size exceedes Format Extension cluster")
      }
      if magic == bitmapMagic {
        guard result.bitmaps.count < maximumBitmapCount else {
          throw .unsupported("Format Extensions of more than \(maximumBitmapCount) bitmaps are not read")
        }
        result.bitmaps.append(try ParallelsBitmap(span, position..<position + byteCount, header))
      }
      position = min((position + byteCount + 7) & ~7, span.byteCount)
    }
  }
}
