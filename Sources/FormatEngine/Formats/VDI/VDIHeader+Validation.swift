extension VDIHeader {
  /// Smaller blocks would make maps of terabytes; larger ones than this no program offers.
  static let blockSizes: ClosedRange<UInt64> = 4 * KiB...256 * MiB

  /// What the header means, once every number of it has been held against its limits. The texts are QEMU's where
  /// QEMU refuses the same.
  func validated() throws(EngineError) -> VDIGeometry {
    guard diskSize <= Self.maximumVirtualSize else {
      throw .unsupported(
        "Unsupported VDI image size (size is 0x\(String(diskSize, radix: 16)), max supported is "
          + "0x\(String(Self.maximumVirtualSize, radix: 16)))")
    }
    guard version == Self.version else {
      throw refusal("version \(version >> 16).\(version & 0xffff)")
    }
    guard mapOffset % 512 == 0 else {
      throw refusal("unaligned block map offset 0x\(String(mapOffset, radix: 16))")
    }
    guard dataOffset % 512 == 0 else {
      throw refusal("unaligned data offset 0x\(String(dataOffset, radix: 16))")
    }
    guard sectorSize == 512 else { throw refusal("sector size \(sectorSize) is not 512") }
    let blockSize = UInt64(blockSize)
    guard blockSize.nonzeroBitCount == 1, Self.blockSizes.contains(blockSize) else {
      throw refusal("block size \(blockSize) is not a power of two from 4096 to 268435456")
    }
    // Data of other programs; VirtualBox itself leaves none there.
    guard blockExtra % 512 == 0, UInt64(blockExtra) <= blockSize else {
      throw refusal("\(blockExtra) extra bytes before each block")
    }
    guard UInt64(blockCount) <= Self.maximumBlockCount else {
      throw refusal("too many blocks \(blockCount), max is \(Self.maximumBlockCount)")
    }
    // At most 2^29 blocks of 2^28 bytes: no overflow.
    let room = UInt64(blockCount) * blockSize
    guard virtualSize <= room else {
      throw refusal("disk size \(virtualSize), image bitmap has room for \(room)")
    }
    let type = try validatedType()
    try validatePlaces()
    return VDIGeometry(
      type: type, blockSize: blockSize, blockExtra: UInt64(blockExtra), blockCount: UInt64(blockCount),
      dataOffset: UInt64(dataOffset))
  }

  /// Guest bytes: whole sectors.
  var virtualSize: UInt64 { diskSize.aligned(upTo: 512) }

  private func validatedType() throws(EngineError) -> VDIImageType {
    guard let type = VDIImageType(rawValue: type) else { throw refusal("image type \(type)") }
    guard type.hasParent else {
      guard parent.isNone else { throw refusal("non-NULL link UUID") }
      guard parentModification.isNone else { throw refusal("non-NULL parent UUID") }
      return type
    }
    guard !parent.isNone else {
      throw .corrupt("The image is a differencing one, and does not say to which parent")
    }
    return type
  }

  private func validatePlaces() throws(EngineError) {
    guard mapOffset >= UInt32(Self.byteCount) else {
      throw .corrupt("The block map at \(mapOffset) lies over the header")
    }
    let mapEnd = UInt64(mapOffset) + UInt64(blockCount) * 4
    guard UInt64(dataOffset) >= mapEnd else {
      throw .corrupt("The first block at \(dataOffset) lies over the block map, which ends at \(mapEnd)")
    }
  }

  private func refusal(_ what: String) -> EngineError { .unsupported("unsupported VDI image (\(what))") }
}
