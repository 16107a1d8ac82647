import TestSupport

private let mebibyte = 1 << 20

/// Extents of ESX servers, put together by the tests.
extension ConformanceRow {
  static let serverVMDK = [
    server("COWD", mebibyte, isWritable: true) { _, own in
      let file = VMDKServerImages.cowd(size: own.byteCount, grainSectors: 1, grains(of: own, 512))
      return BuiltImage(
        file: VMDKServerImages.descriptor(
          "vmfsSparse", "VMFSSPARSE", size: own.byteCount, "image-delta.vmdk"),
        disk: own.bytes, others: ["image-delta.vmdk": file])
    },
    server("COWD over a flat disk", 2 * mebibyte + 512, isWritable: true) { random, own in
      link("vmfsSparse", "VMFSSPARSE", own, &random) { grains in
        VMDKServerImages.cowd(size: own.byteCount, grainSectors: 8, grains)
      }
    },
    server("seSparse over a flat disk", 2 * mebibyte, isWritable: false) { random, own in
      link("seSparse", "SESPARSE", own, &random) { grains in
        VMDKServerImages.spaceEfficient(size: own.byteCount, grains)
      }
    },
  ]

  private static func server(
    _ name: String, _ size: Int, isWritable: Bool,
    _ build: @escaping @Sendable (inout SeededRandom, ModelDisk) -> BuiltImage
  ) -> ConformanceRow {
    var row = ConformanceRow(
      name: "vmdk, \(name)", format: "vmdk", size: size,
      maker: .built { random in
        var own = ModelDisk(byteCount: size)
        for _ in 0..<8 {
          let range = random.range(in: size, most: 150_000, unit: 4096)
          own.write(random.bytes(range.count), at: range.lowerBound)
        }
        return build(&random, own)
      }, isWritable: isWritable)
    row.extentFile = ("image-delta.vmdk", "extents.0")
    return row
  }

  /// A delta of grains of 4 KiB with what is not zero in `own`, over a flat disk of random bytes.
  private static func link(
    _ type: String, _ extent: String, _ own: ModelDisk, _ random: inout SeededRandom,
    _ build: ([Int: [UInt8]]) -> [UInt8]
  ) -> BuiltImage {
    let size = own.byteCount
    let below = random.bytes(size)
    var disk = ModelDisk(below)
    let grains = grains(of: own, 4096)
    for (number, bytes) in grains { disk.write(bytes, at: number * 4096) }
    return BuiltImage(
      file: VMDKServerImages.descriptor(type, extent, size: size, "image-delta.vmdk", parent: "base.vmdk"),
      disk: disk.bytes,
      others: [
        "image-delta.vmdk": build(grains), "base-flat.vmdk": below,
        "base.vmdk": VMDKServerImages.descriptor("vmfs", "VMFS", size: size, "base-flat.vmdk"),
      ], below: below)
  }

  /// The grains of a disk that are not zero, by their numbers.
  private static func grains(of disk: ModelDisk, _ size: Int) -> [Int: [UInt8]] {
    var grains: [Int: [UInt8]] = [:]
    for (number, start) in stride(from: 0, to: disk.byteCount, by: size).enumerated() {
      let bytes = disk.read(at: start, count: min(size, disk.byteCount - start))
      if !bytes.isZero { grains[number] = bytes }
    }
    return grains
  }
}
