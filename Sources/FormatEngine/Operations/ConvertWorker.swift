/// One thread's buffers, and what it does with a segment.
final class ConvertWorker {
  private let work: ConvertWork
  private let buffer: AlignedBuffer
  private let packer: (any ClusterPacker)?
  private let packed: AlignedBuffer
  private var pieces: [PackedPiece] = []

  init(_ work: ConvertWork) throws(EngineError) {
    self.work = work
    buffer = AlignedBuffer(byteCount: Int(work.segmentByteCount))
    if let packing = work.packing {
      packer = try packing.makePacker()
      packed = AlignedBuffer(byteCount: Int(work.segmentByteCount))
    } else {
      packer = nil
      packed = AlignedBuffer(byteCount: 0)
    }
  }

  func copy(_ segment: ConvertSegment) throws(EngineError) {
    if let packing = work.packing, let packer {
      return try pack(segment, with: packer, into: packing)
    }
    var done: UInt64 = 0
    while done < segment.length {
      let offset = segment.sourceOffset + done
      let found = try status(of: segment.source, at: offset, limit: segment.length - done)
      if !work.needsNothing(found) {
        try copy(found, of: segment.source, at: offset, to: segment.targetOffset + done)
      }
      done += found.extent.length
    }
  }

  private func copy(
    _ found: LocatedExtent, of source: ImageChain, at offset: UInt64, to targetOffset: UInt64
  ) throws(EngineError) {
    if found.readsAsZeros, work.options.sparseByteCount > 0 {
      return try writeZeros(at: targetOffset, count: found.extent.length)
    }
    let bytes = unsafe buffer.prefix(Int(found.extent.length))
    try reading(at: offset) { () throws(EngineError) in unsafe try source.read(found, at: offset, into: bytes)
    }
    unsafe try write(UnsafeRawBufferPointer(bytes), at: targetOffset)
  }

  /// Writes what is not zero, and for zeros what the target needs to read as zeros.
  private func write(_ bytes: UnsafeRawBufferPointer, at targetOffset: UInt64) throws(EngineError) {
    guard work.options.sparseByteCount > 0 else {
      return try writing(at: targetOffset) { () throws(EngineError) in
        unsafe try work.target.write(bytes, at: targetOffset)
      }
    }
    var position = 0
    while position < bytes.count {
      let run = unsafe ZeroScan.run(in: bytes, from: position, block: Int(work.options.sparseByteCount))
      let offset = targetOffset + UInt64(position)
      if run.isZero {
        if !work.options.targetReadsAsZeros || work.options.targetHasBacking {
          try writeZeros(at: offset, count: UInt64(run.length))
        }
      } else {
        let piece = unsafe UnsafeRawBufferPointer(rebasing: bytes[position..<position + run.length])
        try writing(at: offset) { () throws(EngineError) in unsafe try work.target.write(piece, at: offset) }
      }
      position += run.length
    }
  }

  private func writeZeros(at offset: UInt64, count: UInt64) throws(EngineError) {
    try writing(at: offset) { () throws(EngineError) in try work.target.writeZeros(at: offset, count: count) }
  }

  // MARK: Packing

  private func pack(
    _ segment: ConvertSegment, with packer: any ClusterPacker, into packing: any CompressedWriting
  ) throws(EngineError) {
    let unit = packing.compressionUnit
    pieces.removeAll(keepingCapacity: true)
    var packedCount = 0
    var done: UInt64 = 0
    while done < segment.length {
      let length = min(unit, segment.length - done)
      let targetOffset = segment.targetOffset + done
      if try readUnit(segment, at: done, length: length, unit: unit) {
        let source = unsafe UnsafeRawBufferPointer(buffer.prefix(Int(unit)))
        // Smaller than the cluster by at least a byte, or it is stored as it is.
        let target = unsafe UnsafeMutableRawBufferPointer(
          rebasing: packed.bytes[packedCount..<packedCount + Int(unit) - 1])
        // A cluster that two sources share is not packed: the other's part would be lost.
        let isWhole =
          targetOffset.isAligned(to: unit)
          && (length == unit || targetOffset + length == work.target.virtualSize)
        if isWhole, let count = unsafe try packer.pack(source, into: target) {
          pieces.append(PackedPiece(guestOffset: targetOffset, byteCount: count))
          packedCount += count
        } else {
          let whole = unsafe UnsafeRawBufferPointer(buffer.prefix(Int(length)))
          try writing(at: targetOffset) { () throws(EngineError) in
            unsafe try work.target.write(whole, at: targetOffset)
          }
        }
      }
      done += length
    }
    guard !pieces.isEmpty else { return }
    let bytes = unsafe UnsafeRawBufferPointer(packed.prefix(packedCount))
    try writing(at: segment.targetOffset) { () throws(EngineError) in
      unsafe try packing.storeCompressed(bytes, pieces: pieces)
    }
  }

  /// Reads one unit into the buffer, filled up with zeros at the end of the disk. False where the target
  /// needs nothing for it.
  private func readUnit(_ segment: ConvertSegment, at done: UInt64, length: UInt64, unit: UInt64)
    throws(EngineError) -> Bool
  {
    var isNeeded = false
    var position: UInt64 = 0
    while position < length {
      let offset = segment.sourceOffset + done + position
      let found = try status(of: segment.source, at: offset, limit: length - position)
      let piece = unsafe UnsafeMutableRawBufferPointer(
        rebasing: buffer.bytes[Int(position)..<Int(position + found.extent.length)])
      try reading(at: offset) { () throws(EngineError) in
        unsafe try segment.source.read(found, at: offset, into: piece)
      }
      if !work.needsNothing(found) { isNeeded = true }
      position += found.extent.length
    }
    unsafe UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[Int(length)..<Int(unit)])
      .initializeMemory(as: UInt8.self, repeating: 0)
    guard isNeeded else { return false }
    let isZero = unsafe ZeroScan.isZero(UnsafeRawBufferPointer(buffer.prefix(Int(unit))))
    guard isZero, work.options.sparseByteCount > 0 else { return true }
    if !work.options.targetReadsAsZeros || work.options.targetHasBacking {
      try writeZeros(at: segment.targetOffset + done, count: length)
    }
    return false
  }

  // MARK: Words for errors

  private func status(of source: ImageChain, at offset: UInt64, limit: UInt64) throws(EngineError)
    -> LocatedExtent
  {
    do throws(EngineError) {
      return try source.extent(at: offset, limit: limit)
    } catch {
      throw error.whileTrying("error while reading block status at offset \(offset)")
    }
  }

  private func reading(at offset: UInt64, _ body: () throws(EngineError) -> Void) throws(EngineError) {
    do throws(EngineError) { try body() } catch {
      throw error.whileTrying("error while reading at byte \(offset)")
    }
  }

  private func writing(at offset: UInt64, _ body: () throws(EngineError) -> Void) throws(EngineError) {
    do throws(EngineError) { try body() } catch {
      throw error.whileTrying("error while writing at byte \(offset)")
    }
  }
}
