/// Header, block map and what is known of the file. Lives in its layer's lock.
struct VDIState {
  let file: any ByteStore
  let headerSector: VDIHeaderSector
  var geometry: VDIGeometry
  var map: EntryTable<UInt32>
  var order: WriteOrder
  /// Bytes of the file when it was last asked; blocks that begin past them are damage.
  var fileEnd: UInt64
  /// From the first change on.
  var session: VDISession?
  /// Why nothing may be written any more.
  var failure: EngineError?
  let identities: IdentitySource

  /// Memory for slices of the map: 2 MiB of it are those of 512 GiB of disk.
  static let mapCacheByteCount = 2 * MiB

  init(_ file: any ByteStore, _ identities: IdentitySource) throws(EngineError) {
    self.file = file
    self.identities = identities
    headerSector = try VDIHeaderSector(file)
    geometry = try headerSector.header.validated()
    fileEnd = try file.byteCount()
    (map, order) = Self.tables(headerSector, geometry, file)
  }

  /// The header counts rooms, so it is on disk before the entries that lead to them; the guest's bytes are, too.
  static func tables(
    _ headerSector: VDIHeaderSector, _ geometry: VDIGeometry, _ file: any ByteStore
  ) -> (EntryTable<UInt32>, WriteOrder) {
    let order = WriteOrder(stores: [file])
    order.append(headerSector)
    let map = EntryTable<UInt32>(
      in: file, at: UInt64(headerSector.header.mapOffset), count: geometry.blockCount, .littleEndian,
      cacheByteCount: mapCacheByteCount, writeOrder: order)
    return (map, order)
  }

  /// Takes header and map from the file again: after a failure it may have the old ones or the new ones, and what counts is
  /// what is there. Nothing may wait to be written. Where even that fails nothing is written any more.
  mutating func reload() throws(EngineError) {
    do throws(EngineError) {
      var fresh = try VDIState(file, identities)
      fresh.session = try VDISession(file, fresh.header, fresh.geometry)
      self = fresh
    } catch {
      session = nil
      failure = error
      throw error
    }
  }

  var header: VDIHeader {
    get { headerSector.header }
    nonmutating set { headerSector.header = newValue }
  }
}

/// The first sector of an image. It changes in memory first, and goes to disk whole.
final class VDIHeaderSector: OrderedTable {
  var header: VDIHeader
  private var bytes: [UInt8]
  private var stored: VDIHeader
  private let file: any ByteStore

  init(_ file: any ByteStore) throws(EngineError) {
    self.file = file
    bytes = try file.bytes(at: 0, count: VDIHeader.byteCount)
    header = try bytes.parsed(VDIHeader.parse)
    stored = header
  }

  var isDirty: Bool { header != stored }

  func writeBack() throws(EngineError) {
    header.put(into: &bytes)
    try file.write(bytes: bytes, at: 0)
    stored = header
  }
}
