extension IdentitySource {
  /// The same for what is made of these disks, one behind the other, or of a part of that: other bytes on them give
  /// other ids, however their images store them. Reads all of them. `skippingUnreadable`: what cannot be read counts as
  /// just that.
  public func mixing(
    contentOf disks: [ImageChain], part: Range<UInt64>? = nil, skippingUnreadable: Bool = false
  ) throws(EngineError) -> IdentitySource {
    guard isDerived else { return self }
    let content = ContentDigest(
      source: try ConcatenatedDisks(disks, part: part), skippingUnreadable: skippingUnreadable)
    return mixing("content of \(content.source.byteCount) bytes").mixing(try content.digest())
  }
}

/// A digest of what disks hold. It is taken of whole pieces, so that it does not tell how the bytes are stored.
private struct ContentDigest {
  let source: ConcatenatedDisks
  let skippingUnreadable: Bool
  private let buffer = AlignedBuffer(byteCount: Int(MiB))

  func digest() throws(EngineError) -> [UInt8] {
    var digest: [UInt8] = []
    var position: UInt64 = 0
    while position < source.byteCount {
      let zeros = zeroRun(at: position)
      if zeros > 0 {
        position += zeros
        continue
      }
      let piece = unsafe buffer.prefix(Int(min(MiB, source.byteCount - position)))
      let unreadable = unsafe try fill(piece, from: position)
      for offset in unreadable {
        digest = try HashAlgorithm.sha256.digest(digest + Array("unreadable \(offset)".utf8))
      }
      if unsafe !ZeroScan.isZero(UnsafeRawBufferPointer(piece)) {
        digest.append(littleEndian: position)
        unsafe digest += try HashAlgorithm.sha256.digest(Array(piece))
        digest = try HashAlgorithm.sha256.digest(digest)
      }
      position += UInt64(piece.count)
    }
    return digest
  }

  /// Bytes of whole pieces that are known to be zeros, 0 where none is.
  private func zeroRun(at position: UInt64) -> UInt64 {
    let rest = source.byteCount - position
    guard let found = try? source.extent(at: position, limit: rest), found.located.readsAsZeros else {
      return 0
    }
    let length = found.located.extent.length
    return length >= rest ? rest : length.aligned(downTo: MiB)
  }

  /// Reads a piece. Returns where it could not be read; zeros are there instead.
  private func fill(_ piece: UnsafeMutableRawBufferPointer, from start: UInt64) throws(EngineError)
    -> [UInt64]
  {
    var unreadable: [UInt64] = []
    var done = 0
    while done < piece.count {
      let position = start + UInt64(done)
      var rest = unsafe UnsafeMutableRawBufferPointer(rebasing: piece[done...])
      do throws(EngineError) {
        let found = try source.extent(at: position, limit: UInt64(rest.count))
        unsafe rest = unsafe UnsafeMutableRawBufferPointer(
          rebasing: rest[..<Int(found.located.extent.length)])
        if found.located.readsAsZeros {
          unsafe rest.initializeMemory(as: UInt8.self, repeating: 0)
        } else {
          unsafe try found.disk.read(into: rest, at: found.offset)
        }
      } catch {
        guard skippingUnreadable else { throw error }
        unsafe rest.initializeMemory(as: UInt8.self, repeating: 0)
        unreadable.append(position)
      }
      done += rest.count
    }
    return unreadable
  }
}
