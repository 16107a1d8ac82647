/// Goes through tables of 64-bit entries in the file itself, for checks: no cache is to hide what is there.
struct TableWalk {
  private let file: any ByteStore
  private let order: EntryTable<UInt64>.ByteOrder

  /// Entries that are read at once.
  private static let chunk: UInt64 = 8192

  init(_ file: any ByteStore, _ order: EntryTable<UInt64>.ByteOrder) {
    self.file = file
    self.order = order
  }

  /// Calls `body` with index and value of every entry that is not 0; where it answers false the entry becomes 0.
  func forEachEntry(
    inTableAt table: UInt64, count: UInt64, _ body: (UInt64, UInt64) throws(EngineError) -> Bool
  ) throws(EngineError) {
    var first: UInt64 = 0
    while first < count {
      let part = min(Self.chunk, count - first)
      let bytes = try file.bytes(at: table + first * 8, count: Int(part) * 8)
      for index in 0..<part {
        let value = try value(at: Int(index), of: bytes)
        if value == 0 { continue }
        if try !body(first + index, value) {
          try file.write(bytes: [UInt8](repeating: 0, count: 8), at: table + (first + index) * 8)
        }
      }
      first += part
    }
  }

  private func value(at index: Int, of bytes: [UInt8]) throws(EngineError) -> UInt64 {
    try bytes.parsed { (span) throws(EngineError) in
      order == .bigEndian
        ? try span.bigEndian(UInt64.self, at: index * 8) : try span.littleEndian(UInt64.self, at: index * 8)
    }
  }
}
