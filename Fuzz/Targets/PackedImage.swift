import FormatEngine
import TestSupport

/// An image as the inputs have it: without the zeros between its tables, so that a change is likely to hit something that is read.
///
/// | bytes  | field                                                    |
/// |--------|----------------------------------------------------------|
/// | 0..2   | whole sectors of 512 bytes of the file, below 2^21        |
/// | 3..4   | bytes of the file after them, below 512                  |
/// | 5..6   | number of runs, below 1024                               |
/// | 7..    | the runs: first sector in 3 bytes, sectors in 2          |
/// | then   | the sectors of the runs, in their order                  |
///
/// All numbers are little-endian. Sectors that no run has are zeros. `scripts/lib/fuzz/pack` makes such inputs of images.
struct PackedImage {
  static let sectorByteCount = 512
  private static let maximumRunCount = 1024
  private static let maximumSectorCount = 1 << 21

  /// A store with the image that the rest of the input holds.
  static func unpack(_ input: inout FuzzInput) throws(EngineError) -> SparseStore {
    let sectorCount = input.number(bytes: 3) % maximumSectorCount
    let tail = input.number(bytes: 2) % sectorByteCount
    let store = SparseStore(byteCount: UInt64(sectorCount * sectorByteCount + tail))
    var runs: [(first: Int, count: Int)] = []
    for _ in 0..<input.number(bytes: 2) % maximumRunCount {
      runs.append((input.number(bytes: 3) % maximumSectorCount, input.number(bytes: 2)))
    }
    let end = try store.byteCount()
    for run in runs where !input.isAtEnd {
      let bytes = Array(input.slice(run.count * sectorByteCount))
      let offset = UInt64(run.first * sectorByteCount)
      guard offset < end, !bytes.isEmpty else { continue }
      try store.write(bytes: Array(bytes.prefix(Int(clamping: end - offset))), at: offset)
    }
    return store
  }
}
