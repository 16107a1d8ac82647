/// How long a file is, for formats that put what is new at its end. Lives in its layer's lock; others write to the
/// file meanwhile, who make it longer only.
struct FileEnd {
  private let file: any ByteStore
  /// Bytes that the file is known to have.
  private(set) var known: UInt64

  init(of file: any ByteStore) throws(EngineError) {
    self.file = file
    known = try file.byteCount()
  }

  /// Asks the file again.
  mutating func look() throws(EngineError) { known = max(known, try file.byteCount()) }

  /// Whether the file has the bytes before `end`.
  mutating func reaches(_ end: UInt64) throws(EngineError) -> Bool {
    if end <= known { return true }
    try look()
    return end <= known
  }

  /// `byteCount` bytes from `hostOffset` on are in the file: what lies past its end was never written, or was cut off.
  mutating func require(_ hostOffset: UInt64, _ byteCount: UInt64, _ what: @autoclosure () -> String)
    throws(EngineError)
  {
    guard try reaches(hostOffset + byteCount) else { throw Self.pastEnd(what(), hostOffset) }
  }

  static func pastEnd(_ what: String, _ hostOffset: UInt64) -> EngineError {
    .corrupt("\(what) at 0x\(hex(hostOffset)) lies past the end of the image file", at: hostOffset)
  }

  /// The file will have these bytes before anything is read there.
  mutating func expect(_ end: UInt64) { known = max(known, end) }

  /// Entries must not point past the end of the file, where a cluster ends with zeros that were not written.
  /// The last byte before `end` is the caller's. (Another size of the file could cut off what others write
  /// behind it at this moment.)
  mutating func extend(to end: UInt64) throws(EngineError) {
    guard end > known else { return }
    try look()
    guard end > known else { return }
    try file.write(bytes: [0], at: end - 1)
    known = end
  }

  /// Room at the end of the file, where something may have stood before, becomes zeros.
  mutating func makeZeros(from start: UInt64, to end: UInt64) throws(EngineError) {
    let byteCount = try file.byteCount()
    if start < byteCount {
      try file.writeZeros(at: start, count: min(byteCount, end) - start, freeing: true)
    }
    try extend(to: end)
  }

  /// Gives back what lies past `end`, when nobody else writes.
  mutating func cut(to end: UInt64) throws(EngineError) {
    guard try file.byteCount() > end else { return }
    try file.resize(to: end)
    try file.flush()
    known = min(known, end)
  }
}
