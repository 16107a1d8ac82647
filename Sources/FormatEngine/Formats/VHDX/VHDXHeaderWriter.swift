/// The header of an open image, and how it is changed: the copy that does not count is overwritten with a higher
/// sequence number, so that one of the two is whole at any moment ([MS-VHDX] 2.2.2.1). Lives in its layer's lock.
final class VHDXHeaderWriter {
  private(set) var header: VHDXHeader
  /// Which of the two counts.
  private(set) var slot: Int
  private let file: any ByteStore

  init(_ header: VHDXHeader, slot: Int, file: any ByteStore) {
    self.header = header
    self.slot = slot
    self.file = file
  }

  /// On disk when it returns.
  func update(_ change: (inout VHDXHeader) -> Void) throws(EngineError) {
    var new = header
    change(&new)
    new.sequenceNumber = try header.sequenceNumber.adding(1, orCorrupt: "VHDX sequence number")
    let other = 1 - slot
    try file.write(bytes: new.serialised(), at: VHDXHeader.hostOffsets[other])
    try file.flush()
    header = new
    slot = other
  }
}
