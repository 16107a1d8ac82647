/// Which MiB of an image file are in use: blocks and regions are all in whole MiB.
struct VHDXRoomMap {
  private var words: [UInt64]

  /// One bit for each MiB: 8 MiB for a file of 64 TiB.
  init(fileByteCount: UInt64) {
    words = Array(repeating: 0, count: Int(fileByteCount.dividedRoundingUp(by: 64 * MiB)))
  }

  /// False where something else is there already. What lies past the end of the file is not counted.
  mutating func take(_ range: Range<UInt64>) -> Bool {
    for unit in range.lowerBound / MiB..<range.upperBound.dividedRoundingUp(by: MiB) {
      let word = Int(unit / 64)
      guard word < words.count else { return true }
      let bit = UInt64(1) << (unit % 64)
      if words[word] & bit != 0 { return false }
      words[word] |= bit
    }
    return true
  }
}
