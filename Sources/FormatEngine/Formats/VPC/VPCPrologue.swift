/// What a file says of itself before its blocks: footer, dynamic disk header, and where tables are.
struct VPCPrologue {
  /// The copy that is believed.
  var footer: VPCFooter
  /// Of dynamic and differencing disks.
  var header: VPCDynamicHeader?
  var virtualSize: UInt64
  let copies: VPCFooterCopies

  init(_ file: any ByteStore, forcedRule: VPCSizeRule?) throws(EngineError) {
    copies = try VPCFooterCopies(file)
    footer = try copies.chosen()
    virtualSize = try footer.virtualSize(forced: forcedRule)
    guard footer.type != .fixed else { return }
    let end = copies.fileByteCount
    // All that counts in it stands in its first sector; the rest may be cut off.
    guard footer.headerOffset <= end, end - footer.headerOffset >= VPCGeometry.sectorSize else {
      throw .corrupt("Error reading dynamic VHD header")
    }
    let bytes = try file.bytes(at: footer.headerOffset, count: VPCDynamicHeader.byteCount)
    let header = try bytes.parsed(VPCDynamicHeader.parse)
    try header.validate(virtualSize: virtualSize, fileByteCount: end)
    self.header = header
  }
}

/// The two places of the footer, as they are on disk.
///
/// A disk ends with one. Dynamic disks begin with another, which QEMU goes by; here either will do where the other
/// is damaged. In a fixed disk the first bytes are the guest's, who may make them look like anything: a
/// sound footer of a fixed disk at the end is believed before them.
struct VPCFooterCopies {
  let fileByteCount: UInt64
  let head: [UInt8]
  let tail: [UInt8]
  /// Bytes of the footer at the end, 0 where there is none. Virtual PC before 2004 wrote 511.
  let tailByteCount: UInt64

  init(_ file: any ByteStore) throws(EngineError) {
    let size = UInt64(VPCFooter.byteCount)
    fileByteCount = try file.byteCount()
    guard fileByteCount >= size - 1 else { throw Self.notVHD }
    head = try file.bytes(at: 0, count: VPCFooter.byteCount)
    let last =
      fileByteCount >= size ? try file.bytes(at: fileByteCount - size, count: VPCFooter.byteCount) : []
    let short = try file.bytes(at: fileByteCount - (size - 1), count: VPCFooter.byteCount - 1) + [0]
    if !VPCFooter.hasCookie(last) && VPCFooter.hasCookie(short) {
      (tail, tailByteCount) = (short, size - 1)
    } else {
      (tail, tailByteCount) = (last, VPCFooter.hasCookie(last) ? size : 0)
    }
  }

  private static let notVHD = EngineError.corrupt("invalid VPC image")

  /// First byte after all but the footer.
  var contentEnd: UInt64 { fileByteCount - tailByteCount }

  var isHeadSound: Bool { VPCFooter.hasCookie(head) && VPCFooter.hasRightChecksum(head) }
  var isTailSound: Bool { VPCFooter.hasCookie(tail) && VPCFooter.hasRightChecksum(tail) }

  /// Whether the file ends with a footer of 512 bytes that is sound.
  var isWhole: Bool { isTailSound && tailByteCount == UInt64(VPCFooter.byteCount) }

  /// The copy to go by.
  func chosen() throws(EngineError) -> VPCFooter {
    if isTailSound {
      let footer = try? tail.parsed(VPCFooter.parse)
      if let footer, footer.type == .fixed, !isHeadSound || footer.currentSize <= contentEnd { return footer }
    }
    if isHeadSound {
      let footer = try head.parsed(VPCFooter.parse)
      guard footer.type != .fixed else {
        throw .corrupt("The image begins with the footer of a fixed disk, whose first bytes are its guest's")
      }
      return footer
    }
    if isTailSound { return try tail.parsed(VPCFooter.parse) }
    guard VPCFooter.hasCookie(head) || VPCFooter.hasCookie(tail) else { throw Self.notVHD }
    throw .corrupt("Incorrect header checksum")
  }
}
