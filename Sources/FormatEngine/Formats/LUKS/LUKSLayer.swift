import Synchronization

/// An opened LUKS volume: the disk is one encrypted run, its sectors numbered from 0.
final class LUKSLayer: ImageLayer {
  var virtualSize: UInt64 { size.load(ordering: .relaxed) }
  let size: Atomic<UInt64>
  let clusterSize: UInt64 = 0
  let backing: BackingReference? = nil
  /// Holes of the file read as whatever zeros decrypt to.
  let storesHoles = false
  let cipher: LayerCipher?
  let file: any ByteStore
  private let guestFile: any ByteStore
  /// Where in the file the disk begins.
  let payloadOffset: UInt64
  /// The header with its key material.
  let area: LUKSArea
  /// Nil where the header lies before the disk.
  let headerFile: NamedStore?
  /// What the key slots hold; nil where the image was opened for inspection, without its key.
  let volumeKey: Secret?
  /// Changes with the key slots. Held while they are changed, never during data I/O.
  let header: Guarded<LUKSHeader>

  /// `file` holds the disk, `headerFile` the header where that is another one.
  init(
    _ file: any ByteStore, header: LUKSHeader, in area: LUKSArea, headerFile: NamedStore?, volumeKey: Secret?
  ) throws(EngineError) {
    let byteCount = try file.byteCount()
    payloadOffset = UInt64(header.payloadSector) * LUKSHeader.sectorByteCount
    guard payloadOffset <= byteCount else {
      throw .corrupt(
        "Could not refresh total sector count: LUKS payload begins at \(payloadOffset), past the end of the file"
      )
    }
    self.file = file
    guestFile = file.guestBytes
    self.area = area
    self.headerFile = headerFile
    self.volumeKey = volumeKey
    self.header = Guarded(header)
    cipher = try volumeKey.map { (key) throws(EngineError) in
      LayerCipher(try SectorCipher(header.suite, key: key), numbering: .guest)
    }
    // Whole sectors, as they are encrypted: what is missing of the last one is taken for zeros.
    size = Atomic((byteCount - payloadOffset).aligned(upTo: LUKSHeader.sectorByteCount))
  }

  func store(_ index: UInt16) -> any ByteStore { guestFile }

  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    Extent(.stored, length: limit, hostOffset: payloadOffset + offset, isEncrypted: true)
  }

  func readCompressed(_ extent: Extent, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    throw .corrupt("A LUKS volume has no compressed data", at: offset)
  }
}

extension LUKSLayer: SelfDescribing {
  var formatSpecificInfo: [InfoField]? { header.withLock { $0.infoFields } }
  var isDirty: Bool? { nil }
  var isEncrypted: Bool { true }
  var isCompressedByDefault: Bool { false }
  var extraFiles: [NamedStore] { headerFile.map { [$0] } ?? [] }
}
