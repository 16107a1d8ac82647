/// The trailer of a UDIF file, from "koly" on. All numbers are big-endian.
///
/// | bytes    | field                                                        |
/// |----------|--------------------------------------------------------------|
/// | 0..3     | "koly"                                                       |
/// | 4..7     | version, 4                                                   |
/// | 8..11    | bytes of the trailer, 512                                    |
/// | 24..31   | offset of the data fork: the chunks                          |
/// | 32..39   | bytes of the data fork                                       |
/// | 40..47   | offset of the resource fork                                  |
/// | 48..55   | bytes of the resource fork, 0 where there is none            |
/// | 56..59   | number of this segment, from 1                               |
/// | 60..63   | segments of the image                                        |
/// | 80..215  | checksum of the data fork                                    |
/// | 216..223 | offset of the property list                                  |
/// | 224..231 | bytes of the property list                                   |
/// | 352..487 | checksum of the checksums of all block tables                |
/// | 492..499 | sectors of the disk                                          |
struct DMGTrailer: Equatable, Sendable {
  static let byteCount = 512
  private static let magic: UInt32 = 0x6b6f_6c79

  /// A range of the file.
  struct Part: Equatable, Sendable {
    var offset: UInt64
    var byteCount: UInt64
  }

  var dataFork: Part
  var resourceFork: Part
  var propertyList: Part
  var dataChecksum: DMGChecksum
  var masterChecksum: DMGChecksum
  var segmentCount: UInt32
  var sectorCount: UInt64

  var virtualSize: UInt64 { sectorCount * 512 }

  /// Finds the trailer: it is the last 512 bytes, or begins at most 1023 bytes before the end of the last sector, as
  /// qemu-img has it; an image that was written as a stream has it at its start.
  static func find(in file: any ByteStore) throws(EngineError) -> DMGTrailer {
    let end = try file.byteCount()
    // qemu-img counts whole sectors.
    guard end > 0 else { throw .corrupt("dmg file must be at least 512 bytes long") }
    guard end >= UInt64(byteCount) else { throw notFound }
    let windowStart = end.aligned(upTo: 512) - min(end.aligned(upTo: 512), 1023)
    let window = try file.bytes(at: windowStart, count: Int(end - windowStart))
    return try window.parsed { (span) throws(EngineError) in
      let last = Int(end - windowStart) - byteCount
      for position in [last] + Array(0..<last) {
        guard try span.bigEndian(UInt32.self, at: position) == magic else { continue }
        return try parse(span, at: position, fileEnd: end)
      }
      let head = try file.bytes(at: 0, count: byteCount)
      return try head.parsed { (span) throws(EngineError) in
        guard try span.bigEndian(UInt32.self, at: 0) == magic else {
          throw notFound
        }
        return try parse(span, at: 0, fileEnd: end)
      }
    }
  }

  private static let notFound = EngineError(
    .notThisFormat, "Could not locate UDIF trailer in dmg file")

  private static func parse(_ span: RawSpan, at start: Int, fileEnd: UInt64) throws(EngineError) -> DMGTrailer
  {
    func part(at offset: Int, _ what: String) throws(EngineError) -> Part {
      let part = Part(
        offset: try span.bigEndian(UInt64.self, at: start + offset),
        byteCount: try span.bigEndian(UInt64.self, at: start + offset + 8))
      guard part.offset <= fileEnd, part.byteCount <= fileEnd - part.offset else {
        throw .corrupt("The \(what) goes past the end of the file")
      }
      return part
    }
    let trailer = DMGTrailer(
      dataFork: try part(at: 24, "data fork"), resourceFork: try part(at: 40, "resource fork"),
      propertyList: try part(at: 216, "property list"), dataChecksum: try DMGChecksum(span, at: start + 80),
      masterChecksum: try DMGChecksum(span, at: start + 352),
      segmentCount: try span.bigEndian(UInt32.self, at: start + 60),
      sectorCount: try span.bigEndian(UInt64.self, at: start + 492))
    guard trailer.sectorCount <= maximumFileOffset / 512 else {
      throw .corrupt("The disk of \(trailer.sectorCount) sectors is too large")
    }
    // .dmgpart files hold the others.
    guard trailer.segmentCount <= 1 else {
      throw .unsupported("The image is in \(trailer.segmentCount) segments, which is not supported")
    }
    return trailer
  }
}

/// A checksum as UDIF has it.
///
/// | bytes  | field                                |
/// |--------|--------------------------------------|
/// | 0..3   | kind: 0 none, 2 CRC-32               |
/// | 4..7   | bits                                 |
/// | 8..135 | the value, the highest byte first    |
struct DMGChecksum: Equatable, Sendable {
  var kind: UInt32
  var value: UInt32

  init(_ span: RawSpan, at offset: Int) throws(EngineError) {
    kind = try span.bigEndian(UInt32.self, at: offset)
    value = try span.bigEndian(UInt32.self, at: offset + 8)
  }

  /// Nil where there is none, or one of another kind.
  var crc32: UInt32? { kind == 2 ? value : nil }
}
