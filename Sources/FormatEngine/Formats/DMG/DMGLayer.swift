/// An opened UDIF image. Its map never changes, so nothing needs a lock.
final class DMGLayer: ImageLayer {
  let virtualSize: UInt64
  let clusterSize: UInt64 = 0
  let backing: BackingReference? = nil
  let storesHoles = false
  let file: any ByteStore
  private let guestFile: any ByteStore
  let trailer: DMGTrailer
  let map: DMGChunkMap
  /// By the numbers of the tables.
  let checksums: [DMGChecksum]
  private let fileEnd: UInt64
  private let codec = DMGChunkCodec()

  init(_ file: any ByteStore, _ trailer: DMGTrailer, _ tables: [DMGBlockTable]) throws(EngineError) {
    self.file = file
    guestFile = file.guestBytes
    self.trailer = trailer
    fileEnd = try file.byteCount()
    virtualSize = trailer.virtualSize
    map = try DMGChunkMap(tables)
    checksums = tables.map(\.checksum)
  }

  func store(_ index: UInt16) -> any ByteStore { guestFile }

  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    var index = map.index(at: offset)
    guard let chunk = chunk(index, at: offset) else {
      throw .corrupt("No chunk of the image has sector \(offset / 512)", at: offset)
    }
    try requireStored(chunk)
    var length = chunk.guestEnd - offset
    if chunk.kind.isPacked {
      return Extent(.compressed, length: min(length, limit), hostOffset: chunk.hostOffset)
    }
    let host = chunk.hostOffset + (offset - chunk.guestStart)
    while length < limit {
      index += 1
      guard let next = self.chunk(index, at: offset + length), Self.joins(chunk, next, host + length),
        (try? requireStored(next)) != nil
      else { break }
      length += next.sectorCount * 512
    }
    length = min(length, limit)
    return chunk.kind.isZeros
      ? Extent(.zeros, length: length) : Extent(.stored, length: length, hostOffset: host)
  }

  func packedUnit(at offset: UInt64) throws(EngineError) -> Range<UInt64> {
    guard let chunk = map.chunk(at: offset) else { throw .corrupt("No chunk is packed here", at: offset) }
    return chunk.guestStart..<min(chunk.guestEnd, virtualSize)
  }

  func readCompressed(_ extent: Extent, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    guard let chunk = map.chunk(at: offset), chunk.guestStart == offset else {
      throw .corrupt("A chunk is unpacked whole", at: offset)
    }
    let byteCount = Int(chunk.guestEnd - chunk.guestStart)
    if buffer.count == byteCount { return unsafe try codec.unpack(chunk, from: file, into: buffer) }
    guard buffer.count < byteCount else { throw .corrupt("A chunk is shorter than its extent", at: offset) }
    // The disk ends inside of the chunk.
    let whole = AlignedBuffer(byteCount: byteCount)
    unsafe try codec.unpack(chunk, from: file, into: whole.bytes)
    unsafe buffer.copyMemory(from: UnsafeRawBufferPointer(whole.prefix(buffer.count)))
  }

  /// All of a packed chunk.
  func unpack(_ chunk: DMGChunk, into buffer: UnsafeMutableRawBufferPointer) throws(EngineError) {
    unsafe try codec.unpack(chunk, from: file, into: buffer)
  }

  /// The chunk at an index of the map, if it has a guest byte.
  private func chunk(_ index: Int, at offset: UInt64) -> DMGChunk? {
    guard index < map.chunks.count, map.chunks[index].guestStart <= offset else { return nil }
    return map.chunks[index]
  }

  private static func joins(_ chunk: DMGChunk, _ next: DMGChunk, _ hostEnd: UInt64) -> Bool {
    chunk.kind.isZeros ? next.kind.isZeros : next.kind == .raw && next.hostOffset == hostEnd
  }

  /// Whether the file has all bytes that a chunk says.
  func requireStored(_ chunk: DMGChunk) throws(EngineError) {
    guard !chunk.kind.isZeros else { return }
    guard chunk.hostOffset + chunk.byteCount <= fileEnd else {
      throw .corrupt("A chunk lies past the end of the file", at: chunk.guestStart)
    }
    guard chunk.kind.isPacked || chunk.byteCount >= chunk.sectorCount * 512 else {
      throw .corrupt("A chunk that is not packed has too few bytes", at: chunk.guestStart)
    }
  }
}
