extension IdentitySource {
  /// The same for what is made of these disks, one behind the other, or of a part of that: other bytes on them give
  /// other ids. Reads all of them. `skippingUnreadable`: what cannot be read counts as just that.
  public func mixing(
    contentOf disks: [ImageChain], part: Range<UInt64>? = nil, skippingUnreadable: Bool = false
  ) throws(EngineError) -> IdentitySource {
    guard isDerived else { return self }
    let source = try ConcatenatedDisks(disks, part: part)
    var digest: [UInt8] = []
    var position: UInt64 = 0
    while position < source.byteCount {
      let limit = min(Self.pieceByteCount, source.byteCount - position)
      var length = limit
      do throws(EngineError) {
        let found = try source.extent(at: position, limit: limit)
        length = found.located.extent.length
        if !found.located.readsAsZeros {
          try found.disk.mixContent(at: found.offset, length, position, into: &digest)
        }
      } catch {
        guard skippingUnreadable else { throw error }
        digest = try HashAlgorithm.sha256.digest(digest + Array("unreadable \(position)".utf8))
      }
      position += length
    }
    return mixing("content of \(source.byteCount) bytes").mixing(digest)
  }

  private static let pieceByteCount = MiB
}

extension ImageChain {
  /// Makes `digest` one of these bytes, too, unless they are zeros; `position` is what they count as.
  fileprivate func mixContent(
    at offset: UInt64, _ byteCount: UInt64, _ position: UInt64, into digest: inout [UInt8]
  ) throws(EngineError) {
    let buffer = fillBuffers.take()
    defer { fillBuffers.give(buffer) }
    let piece = unsafe buffer.prefix(Int(byteCount))
    unsafe try read(into: piece, at: offset)
    guard unsafe !ZeroScan.isZero(UnsafeRawBufferPointer(piece)) else { return }
    digest.append(littleEndian: position)
    unsafe digest += try HashAlgorithm.sha256.digest(Array(piece))
    digest = try HashAlgorithm.sha256.digest(digest)
  }
}
