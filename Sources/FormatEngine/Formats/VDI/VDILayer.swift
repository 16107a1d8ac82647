import Synchronization

/// An opened VDI image.
final class VDILayer: ImageLayer {
  var virtualSize: UInt64 { size.load(ordering: .relaxed) }
  let clusterSize: UInt64
  /// Rooms of a fixed image are all there from the start; which of them hold something, the host knows.
  let storesHoles: Bool
  let cipher: LayerCipher? = nil
  let file: any ByteStore
  private let guestFile: any ByteStore
  let request: LayerRequest
  /// Protects header and block map, never data I/O. After `RangeLock`.
  let state: Guarded<VDIState>
  /// The virtual size, for those who ask without the lock.
  let size: Atomic<UInt64>
  /// The parent once it was looked for. Taken alone.
  let foundParent = Guarded<BackingReference?>(nil)

  init(file: any ByteStore, _ request: LayerRequest) throws(EngineError) {
    let state = try VDIState(file, request.identities)
    clusterSize = state.geometry.blockSize
    storesHoles = state.geometry.type == .fixed
    size = Atomic(state.header.virtualSize)
    self.file = file
    guestFile = file.guestBytes
    self.request = request
    self.state = Guarded(state)
  }

  func store(_ index: UInt16) -> any ByteStore { guestFile }

  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    try state.withLock { (state) throws(EngineError) in try state.extent(at: offset, limit: limit) }
  }

  func readCompressed(_ extent: Extent, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    throw .corrupt("A VDI image has no compressed data", at: offset)
  }
}

extension VDIState {
  /// Entries that one look-up goes through at most: those of 64 GiB of disk, 256 KiB of the map.
  private static let maximumRun: UInt64 = 65536

  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    let first = geometry.blockIndex(offset)
    let start = try place(ofBlock: first)
    let inBlock = geometry.offsetInBlock(offset)
    var length = geometry.blockSize - inBlock
    var index = first + 1
    while length < limit, index - first < Self.maximumRun {
      // A damaged entry ends the run; reading it is what fails.
      guard let next = try? place(ofBlock: index), continues(start, next, after: index - first) else { break }
      length += geometry.blockSize
      index += 1
    }
    var extent = Extent(start.source, length: min(length, limit))
    if let room = start.room { extent.hostOffset = geometry.hostOffset(room) + inBlock }
    return extent
  }

  /// What an entry says of its block.
  private struct Place {
    var source: Extent.Source
    var room: UInt32?
  }

  private func place(ofBlock index: UInt64) throws(EngineError) -> Place {
    let entry = VDIEntry(try map.entry(at: index))
    if let room = entry.room {
      try require(room, ofBlock: index)
      return Place(source: .stored, room: room)
    }
    // Without a parent both say zeros, as QEMU has it.
    let isOpen = entry == .free && geometry.type.hasParent
    return Place(source: isOpen ? .below : .zeros, room: nil)
  }

  /// An entry must lead to a room that is in the file.
  func require(_ room: UInt32, ofBlock index: UInt64) throws(EngineError) {
    guard geometry.hostOffset(room) < fileEnd else {
      throw .corrupt(
        "Block \(index) lies in room \(room) of the image, which is past its end",
        at: index * geometry.blockSize)
    }
  }

  private func continues(_ start: Place, _ next: Place, after count: UInt64) -> Bool {
    guard start.source == next.source else { return false }
    guard let room = start.room else { return true }
    return geometry.blockExtra == 0 && next.room.map(UInt64.init) == UInt64(room) + count
  }
}
