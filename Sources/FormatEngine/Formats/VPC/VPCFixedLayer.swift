import Synchronization

/// A fixed disk: guest offsets are host offsets, and the footer follows the last of them.
final class VPCFixedLayer: ImageLayer {
  var virtualSize: UInt64 { size.load(ordering: .relaxed) }
  let clusterSize: UInt64 = 0
  let backing: BackingReference? = nil
  let storesHoles = true
  let cipher: LayerCipher? = nil
  let file: any ByteStore
  private let guestFile: any ByteStore
  let size: Atomic<UInt64>
  /// The footer, and where it begins: what of the disk would lie past that is not in the file. Taken alone.
  let end: Guarded<(footer: VPCFooter, hostOffset: UInt64)>

  init(_ file: any ByteStore, _ prologue: VPCPrologue) {
    self.file = file
    guestFile = file.guestBytes
    size = Atomic(prologue.virtualSize)
    end = Guarded((prologue.footer, prologue.copies.contentEnd))
  }

  func store(_ index: UInt16) -> any ByteStore { guestFile }

  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    Extent(.stored, length: try stored(at: offset, limit: limit), hostOffset: offset)
  }

  /// The bytes from `offset` on that are in the file.
  func stored(at offset: UInt64, limit: UInt64) throws(EngineError) -> UInt64 {
    let end = end.withLock { $0.hostOffset }
    guard offset < end else { throw .corrupt("The image ends before its disk does", at: offset) }
    return min(limit, end - offset)
  }

  func readCompressed(_ extent: Extent, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    throw .corrupt("A VHD has no compressed data", at: offset)
  }
}
