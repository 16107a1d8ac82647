/// How grains are packed.
enum VMDKGrainPacking {
  /// A stream that stores what does not get smaller has a few bytes for each 5000, and some at both ends.
  static func largestPackedGrain(ofSize size: UInt64) -> UInt64 { size + size / 512 + 64 }

  static func makePacker() throws(EngineError) -> any ClusterPacker {
    try DeflatePacker(.zlib, level: deflateLevel)
  }

  /// Images of programs and documents are within 1 % of qemu-img's, which are packed by zlib's level 6. Level 6 here makes
  /// them 1 to 2 % smaller than those, in twice the time.
  private static let deflateLevel = 4

  /// Fills `target` with a grain. `target` may be shorter than a grain at the end of an extent: some writers pack the
  /// last grain whole, some only what the disk has of it.
  static func unpack(
    _ packed: UnsafeRawBufferPointer, with unpacker: DeflateUnpacker,
    into target: UnsafeMutableRawBufferPointer, grainSize: Int
  ) throws(EngineError) {
    if target.count < grainSize {
      let whole = AlignedBuffer(byteCount: grainSize)
      do throws(EngineError) {
        unsafe try unpacker.unpack(packed, into: whole.bytes)
        unsafe target.copyMemory(from: UnsafeRawBufferPointer(whole.prefix(target.count)))
        return
      } catch _ {}
    }
    unsafe try unpacker.unpack(packed, into: target)
  }
}
