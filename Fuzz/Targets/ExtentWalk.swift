import FormatEngine
import TestSupport

/// Goes through the extents of a disk and reads some of each; the disk may claim to be huge.
struct ExtentWalk {
  private let chain: ImageChain
  private static let maximumExtentCount = 256
  private static let maximumReadCount = 64

  init(_ chain: ImageChain) { self.chain = chain }

  func run() throws {
    let size = chain.virtualSize
    var (position, readCount): (UInt64, Int) = (0, 0)
    for _ in 0..<Self.maximumExtentCount where position < size {
      guard let found = try? chain.extent(at: position, limit: size - position) else {
        position += max(chain.top.clusterSize, 4096)
        continue
      }
      let length = found.extent.length
      guard length > 0, length <= size - position else {
        throw FuzzFinding("An extent of \(length) bytes at \(position) of \(size)")
      }
      if readCount < Self.maximumReadCount {
        readCount += 1
        try read(found.extent, at: position)
      }
      position += length
    }
    // Across the borders of extents, and at the end.
    for offset in [0, size / 3, size / 2, size - min(size, 70_000)] where offset < size {
      _ = try? chain.readBytes(at: offset, count: Int(min(70_000, size - offset)))
    }
  }

  /// The first and the last bytes; what is said to be zeros reads so.
  private func read(_ extent: Extent, at offset: UInt64) throws {
    let count = Int(min(extent.length, 1000))
    for start in [offset, offset + extent.length - UInt64(count)] {
      guard let bytes = try? chain.readBytes(at: start, count: count) else { continue }
      if extent.source == .zeros, bytes.contains(where: { $0 != 0 }) {
        throw FuzzFinding("Zeros at \(start) that do not read so")
      }
    }
  }
}
