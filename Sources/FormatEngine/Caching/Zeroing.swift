/// What the tables say of guest bytes that are to read as zeros.
enum Zeroing: Sendable {
  /// They do; 0: only writing zeros will do.
  case done(UInt64)
  /// They are stored, and zeros have to be written there.
  case stored(hostOffset: UInt64, count: UInt64)

  /// Writes the zeros, outside of the layer's lock, and says how many guest bytes read as zeros now.
  func finish(in file: any ByteStore, keepingRoom: Bool) throws(EngineError) -> UInt64 {
    switch self {
    case .done(let count): return count
    case .stored(let hostOffset, let count):
      try file.writeZeros(at: hostOffset, count: count, freeing: !keepingRoom)
      return count
    }
  }
}
