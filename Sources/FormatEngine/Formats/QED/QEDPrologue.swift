/// What stands in the header's clusters: the header, and the name of the backing file.
struct QEDPrologue: Equatable, Sendable {
  var header: QEDHeader
  var backing: BackingReference?

  static func read(from file: any ByteStore) throws(EngineError) -> QEDPrologue {
    let fileByteCount = try file.byteCount()
    let head = try file.bytes(at: 0, count: Int(min(UInt64(QEDHeader.byteCount), fileByteCount)))
    let header = try head.parsed { (span) throws(EngineError) in try QEDHeader.parse(span) }
    try header.validate(fileByteCount: fileByteCount)
    guard header.features.contains(.backingFile) else { return QEDPrologue(header: header) }
    let bytes = try file.bytes(at: UInt64(header.backingNameOffset), count: Int(header.backingNameLength))
    let name = String(hostBytes: bytes.prefix { $0 != 0 })
    let format = header.features.contains(.rawBacking) ? "raw" : nil
    return QEDPrologue(header: header, backing: BackingReference(name: name, format: format))
  }

  /// Sets the name of the backing file, which the caller writes to the place that the header then gives.
  /// Of formats only raw can be recorded. Returns the bytes of the name.
  mutating func setBacking(_ reference: BackingReference?, at offset: UInt32) throws(EngineError) -> [UInt8] {
    header.features.subtract([.backingFile, .rawBacking])
    let name = (reference?.name ?? "").hostBytes
    guard name.count <= QEDHeader.maximumNameLength else { throw .invalid("Backing file name too long") }
    header.backingNameOffset = name.isEmpty ? 0 : offset
    header.backingNameLength = UInt32(name.count)
    backing = nil
    guard let reference, !name.isEmpty else { return [] }
    header.features.insert(.backingFile)
    if reference.format == "raw" { header.features.insert(.rawBacking) }
    backing = BackingReference(name: reference.name, format: reference.format == "raw" ? "raw" : nil)
    return name
  }
}
