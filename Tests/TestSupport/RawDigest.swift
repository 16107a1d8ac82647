public import FormatEngine

/// What a disk holds in one line: how many of its 64 KiB blocks are not all zeros, and a SHA-256 over
/// (offset as 8 little-endian bytes + block) of just those. shared/samples/digest prints the same.
public struct RawDigest: Equatable, Sendable, CustomStringConvertible {
  public var blockCount: Int
  public var sha256: String

  public init(blockCount: Int, sha256: String) {
    self.blockCount = blockCount
    self.sha256 = sha256
  }

  public var description: String { "\(blockCount) \(sha256)" }

  private static let block: UInt64 = 64 * KiB

  /// The digest of a disk, read through its chain; what the chain knows to be zeros is not read.
  public static func of(_ chain: ImageChain) throws -> RawDigest {
    try TemporaryFolder.with { folder in
      let list = try FileStore.create(folder.file("blocks"), cache: .unflushed)
      var position: UInt64 = 0
      var listed: UInt64 = 0
      var blockCount = 0
      while position < chain.virtualSize {
        // Always a multiple of the block here.
        let found = try chain.extent(at: position, limit: chain.virtualSize - position)
        let end = position + found.extent.length
        let next = end == chain.virtualSize ? end : end.aligned(downTo: block)
        if found.readsAsZeros && next > position {
          position = next
          continue
        }
        let bytes = try chain.readBytes(at: position, count: Int(min(block, chain.virtualSize - position)))
        if bytes.contains(where: { $0 != 0 }) {
          var entry: [UInt8] = []
          entry.append(littleEndian: position)
          try list.write(bytes: entry + bytes, at: listed)
          listed += UInt64(8 + bytes.count)
          blockCount += 1
        }
        position += UInt64(bytes.count)
      }
      let sum = try TestProcess.run(["/usr/bin/sha256sum", folder.file("blocks")]).expecting(0)
      return RawDigest(blockCount: blockCount, sha256: String(sum.stdoutText.prefix(64)))
    }
  }
}
