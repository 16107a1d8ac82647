/// What has to be on disk before the table says that a block is there: its bitmap, and the footer behind it.
///
/// The footer moves along when the file grows. While it is away the copy at the start stands for it.
final class VPCFileEnd: OrderedTable {
  private let file: any ByteStore
  private let bitmaps: VPCBitmaps
  /// Where the footer has to go and what it is; nil where it stands as it should.
  private var pending: (footer: VPCFooter, hostOffset: UInt64)?

  init(_ file: any ByteStore, _ bitmaps: VPCBitmaps) {
    self.file = file
    self.bitmaps = bitmaps
  }

  var isDirty: Bool { pending != nil || bitmaps.table.isDirty }

  /// The file ends at `hostOffset`, but for its footer.
  func move(_ footer: VPCFooter, to hostOffset: UInt64) { pending = (footer, hostOffset) }

  func writeBack() throws(EngineError) {
    try bitmaps.table.writeBack()
    guard let pending else { return }
    let end = pending.hostOffset + UInt64(VPCFooter.byteCount)
    // Room at the end that was given back may have been written to: the footer must come last.
    if try file.byteCount() > end { try file.resize(to: end) }
    try file.write(bytes: pending.footer.bytes, at: pending.hostOffset)
    self.pending = nil
  }
}
