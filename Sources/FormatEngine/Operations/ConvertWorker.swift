/// One thread's buffers, and what it does with a segment.
final class ConvertWorker {
  private let work: ConvertWork
  private let buffer: AlignedBuffer
  private let packer: (any ClusterPacker)?
  private let packed: AlignedBuffer
  private var pieces: [PackedPiece] = []
  /// For each unit of the segment in the buffer, whether the target needs it.
  private var neededUnits: [Bool] = []

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
    try readAll(segment, unit: unit)
    pieces.removeAll(keepingCapacity: true)
    var packedCount = 0
    for (index, isNeeded) in neededUnits.enumerated() where isNeeded {
      let done = UInt64(index) * unit
      let length = min(unit, segment.length - done)
      let offset = segment.targetOffset + done
      let whole = unsafe UnsafeRawBufferPointer(rebasing: buffer.bytes[Int(done)..<Int(done + unit)])
      if unsafe try skipZeros(whole, at: offset, length) { continue }
      // A cluster that two sources share is not packed: the other's part would be lost.
      let isWhole =
        offset.isAligned(to: unit) && (length == unit || offset + length == work.target.virtualSize)
      // Smaller than the cluster by at least a byte, or it is stored as it is.
      let room = unsafe UnsafeMutableRawBufferPointer(
        rebasing: packed.bytes[packedCount..<packedCount + Int(unit) - 1])
      if isWhole, let count = unsafe try packer.pack(whole, into: room) {
        pieces.append(PackedPiece(guestOffset: offset, byteCount: count))
        packedCount += count
      } else {
        try writing(at: offset) { () throws(EngineError) in
          unsafe try work.target.write(UnsafeRawBufferPointer(rebasing: whole[0..<Int(length)]), at: offset)
        }
      }
    }
    guard !pieces.isEmpty else { return }
    let bytes = unsafe UnsafeRawBufferPointer(packed.prefix(packedCount))
    try writing(at: segment.targetOffset) { () throws(EngineError) in
      unsafe try packing.storeCompressed(bytes, pieces: pieces)
    }
  }

  /// Whether a unit is all zeros and done with.
  private func skipZeros(_ unit: UnsafeRawBufferPointer, at offset: UInt64, _ length: UInt64)
    throws(EngineError)
    -> Bool
  {
    guard work.options.sparseByteCount > 0, unsafe ZeroScan.isZero(unit) else { return false }
    if !work.options.targetReadsAsZeros || work.options.targetHasBacking {
      try writeZeros(at: offset, count: length)
    }
    return true
  }

  /// Reads a segment into the buffer, its last unit filled up with zeros, and notes which units hold
  /// anything that the target needs.
  private func readAll(_ segment: ConvertSegment, unit: UInt64) throws(EngineError) {
    let unitCount = Int(segment.length.dividedRoundingUp(by: unit))
    neededUnits.removeAll(keepingCapacity: true)
    neededUnits.append(contentsOf: repeatElement(false, count: unitCount))
    var done: UInt64 = 0
    while done < segment.length {
      let offset = segment.sourceOffset + done
      let found = try status(of: segment.source, at: offset, limit: segment.length - done)
      let end = done + found.extent.length
      let piece = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[Int(done)..<Int(end)])
      try reading(at: offset) { () throws(EngineError) in
        unsafe try segment.source.read(found, at: offset, into: piece)
      }
      if !work.needsNothing(found) {
        for index in Int(done / unit)...Int((end - 1) / unit) { neededUnits[index] = true }
      }
      done = end
    }
    unsafe UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[Int(done)..<unitCount * Int(unit)])
      .initializeMemory(as: UInt8.self, repeating: 0)
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
