import FormatEngine

/// What is packed: every way of packing that a DMG knows, among them those whose unpacking is written here (ADC, LZFSE).
enum ChunkFuzzing {
  private static let kinds: [UInt32] = [
    0x8000_0004, 0x8000_0005, 0x8000_0006, 0x8000_0007, 0x8000_0008, 0, 1, 2,
  ]

  /// The kind in one byte, the sectors in two; the rest is the packed bytes.
  static func run(_ bytes: [UInt8]) throws {
    var input = FuzzInput(bytes)
    let kind = kinds[input.below(kinds.count)]
    let sectorCount = UInt64(input.number(bytes: 2) % 2048)
    let packed = Array(input.rest)
    let chunk = DMGShell.Chunk(
      kind: kind, sectorCount: sectorCount, offset: 0, byteCount: UInt64(packed.count))
    let store = try DMGShell.image(dataFork: packed, propertyList: DMGShell.propertyList([chunk]))
    let chain = try FuzzedImage.open(store, format: "dmg")
    try ExtentWalk(chain).run()
  }
}
