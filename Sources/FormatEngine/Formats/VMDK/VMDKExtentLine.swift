/// A line of a descriptor that describes one extent:
///
///     RW 4192256 SPARSE "disk-s001.vmdk"
///     RW 63 FLAT "disk-f001.vmdk" 0
///
/// access, size in sectors, kind, file name, and for flat extents the sector of the file at which they begin.
/// ("Virtual Disk Format 5.0", "The Extent Description".)
struct VMDKExtentLine: Equatable, Sendable {
  enum Access: String, Sendable {
    case readWrite = "RW"
    case readOnly = "RDONLY"
    case none = "NOACCESS"
  }

  var access: Access
  /// Guest bytes.
  var byteCount: UInt64
  /// As written: FLAT, SPARSE, ZERO, VMFS, ...
  var kind: String
  /// Empty for extents without a file.
  var fileName: String
  /// Host bytes before the extent's first one.
  var hostOffset: UInt64

  var fileContent: FileContent { ["FLAT", "VMFS"].contains(kind) ? .guestBytes : .tables }

  static let sectorByteCount: UInt64 = 512
  /// The number of an extent has 16 bits in `Extent.store`. As extents of 2 GiB they make 128 TiB.
  static let maximumCount = 65_535
  /// 2^54 sectors are 2^63 bytes.
  private static let maximumSectors: UInt64 = maximumFileOffset / sectorByteCount

  init(access: Access = .readWrite, byteCount: UInt64, kind: String, fileName: String, hostOffset: UInt64 = 0)
  {
    self.access = access
    self.byteCount = byteCount
    self.kind = kind
    self.fileName = fileName
    self.hostOffset = hostOffset
  }

  /// Nil where the line is none of an extent, or of one without any bytes. `line`: without blanks at its ends.
  init?(_ line: ArraySlice<UInt8>) throws(EngineError) {
    let wordEnd = line.firstIndex { $0 == 0x20 || $0 == 0x09 } ?? line.endIndex
    let word = String(decoding: line[..<wordEnd].prefix(16), as: UTF8.self)
    guard let access = Access(rawValue: word.uppercased()) else { return nil }
    let invalid = EngineError.corrupt(
      "Invalid extent line: \(String(hostBytes: line.prefix(600)))")
    let quote = line.firstIndex(of: UInt8(ascii: "\""))
    let head = line[wordEnd..<(quote ?? line.endIndex)].split { $0 == 0x20 || $0 == 0x09 }
    guard head.count == 2 else { throw invalid }
    guard let sectors = UInt64(String(decoding: head[0], as: UTF8.self)), sectors <= Self.maximumSectors
    else {
      throw invalid
    }
    var name = ""
    var rest: [ArraySlice<UInt8>] = []
    if let quote {
      let nameStart = line.index(after: quote)
      guard let nameEnd = line[nameStart...].firstIndex(of: UInt8(ascii: "\"")) else { throw invalid }
      name = String(hostBytes: line[nameStart..<nameEnd])
      rest = line[line.index(after: nameEnd)...].split { $0 == 0x20 || $0 == 0x09 }
    }
    let kind = String(decoding: head[1], as: UTF8.self).uppercased()
    guard let offset = Self.hostOffset(rest, kind), (kind == "ZERO") || !name.isEmpty else { throw invalid }
    guard sectors > 0 else { return nil }
    self.init(
      access: access, byteCount: sectors * Self.sectorByteCount, kind: kind, fileName: name,
      hostOffset: offset)
  }

  /// What stands behind the name: flat extents must say where they begin, no other kind may.
  private static func hostOffset(_ rest: [ArraySlice<UInt8>], _ kind: String) -> UInt64? {
    guard kind == "FLAT" else { return rest.isEmpty || kind == "ZERO" ? 0 : nil }
    // A device's flat extents may have more: ids of the partition and of the device.
    guard let first = rest.first, let sectors = UInt64(String(decoding: first, as: UTF8.self)),
      sectors <= maximumSectors
    else { return nil }
    return sectors * sectorByteCount
  }

  /// As it stands in a descriptor.
  var text: String {
    let head = "\(access.rawValue) \(byteCount / Self.sectorByteCount) \(kind) \"\(fileName)\""
    return kind == "FLAT" ? "\(head) \(hostOffset / Self.sectorByteCount)" : head
  }
}
