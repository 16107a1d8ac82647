import TestSupport

@testable import FormatEngine

/// What can be damaged in a VHDX image: headers, region tables, the log and the BAT.
enum VHDXDamage {
  static func damages(_ image: SoundImage) -> [DamageKind] {
    let file = DamagedFile(bytes: image.bytes)
    // Of the regions the BAT is the one whose GUID begins so.
    let regions = (0..<2).map { (192 << 10) + 16 + 32 * $0 }
    let bat = Int(file.number(at: (regions.first { file.number(at: $0, width: 4) == 0x2dc2_7766 } ?? 0) + 16))
    let places = (0..<64).map { bat + 8 * $0 }
    let used = places.filter { file.number(at: $0) & 7 >= 6 && file.number(at: $0) >> 20 > 0 }
    let hasParent = image.below != nil
    let end = UInt64(image.bytes.count) >> 20
    func entry(
      _ name: String, _ outcome: DamageKind.Outcome, judgeDiffers: String? = nil, _ value: UInt64
    ) -> DamageKind {
      DamageKind(name, outcome, judgeDiffers: judgeDiffers) { file, random in
        file.put(value, at: used.any(&random))
      }
    }
    let judge = "it looks at what lies outside of the file only"
    return [
      entry("block past the end", .mended, (end + 3) << 20 | 6),
      entry("block at the end", .mended, end << 20 | 6),
      entry("block at the most that there is", .depends, judgeDiffers: judge, ~0xfffff | 6),
      entry("reserved state 4", .stays, judgeDiffers: judge, 4),
      entry("partially present", hasParent ? .depends : .stays, judgeDiffers: judge, end << 20 | 7),
      entry("block on the BAT", .stays, judgeDiffers: judge, UInt64(bat) | 6),
      entry("block on the log", .stays, judgeDiffers: judge, 1 << 20 | 6),
      entry("block on the headers", .stays, judgeDiffers: judge, 6),
      entry("reserved bits", .depends, judgeDiffers: judge, 0xff008 | 6),
      entry("entry taken out", .depends, judgeDiffers: judge, 0),
      entry("undefined", .depends, judgeDiffers: judge, 1),
      entry("unmapped", .depends, judgeDiffers: judge, 3),
      DamageKind("two blocks in one place", judgeDiffers: judge) { file, random in
        file.put(file.number(at: used.any(&random)), at: used.any(&random))
      },
      header("first header damaged", 64 << 10), header("second header damaged", 128 << 10),
      header("first region table damaged", 192 << 10, .mended),
      header("second region table damaged", 256 << 10, .mended),
      DamageKind("both headers damaged", .refused, judgeDiffers: judge) { file, _ in
        for start in [64 << 10, 128 << 10] { file.change(start + 20, width: 1) { $0 ^ 4 } }
      },
      DamageKind("both region tables damaged", .refused, judgeDiffers: judge) { file, _ in
        for start in [192 << 10, 256 << 10] { file.change(start + 20, width: 1) { $0 ^ 4 } }
      },
      DamageKind("a log that says it is in use", judgeDiffers: "it does not open the image") { file, random in
        var image = VHDXBytes(file.bytes)
        image.setHeader(48, to: random.next() | 1)
        file.bytes = image.bytes
      },
      .anyBytes(of: "the BAT", in: [bat..<bat + 64]),
      .anyBytes(of: "the headers", in: [(64 << 10)..<(64 << 10) + 80]),
      .anyBytes(of: "the log", in: [(1 << 20)..<(1 << 20) + 4096]),
      .anyBytes(of: "the regions", in: [(192 << 10)..<(192 << 10) + 80]),
    ] + DamageKind.ofFiles(unit: 1 << 20)
  }

  /// One of two copies: the other one counts.
  private static func header(
    _ name: String, _ start: Int, _ outcome: DamageKind.Outcome = .depends
  ) -> DamageKind {
    DamageKind(name, outcome, judgeDiffers: "copies are no matter of its check") { file, random in
      file.change(start + random.below(60), width: 1) { $0 ^ 4 }
    }
  }
}

extension RepairSubject {
  static let vhdx: [RepairSubject] = [
    RepairSubject(
      name: "vhdx, dynamic",
      make: { random in
        try .judged(
          JudgeImage(
            format: "vhdx", size: 4 << 20, options: ["block_size=1M", "log_size=1M"], cluster: 1 << 20,
            operationCount: 5), isBigEndian: false, &random)
      }, damages: VHDXDamage.damages),
    RepairSubject(
      name: "vhdx, differencing", isJudged: false,
      make: { random in
        let locator = try VHDXParentLocator(name: "p.vhdx", linkage: VHDXGuid(1, 2, 3, 4))
        let store = MemoryStore(try VHDXBytes(size: 4 << 20, parent: locator).bytes)
        let below = random.bytes(4 << 20)
        let chain = try MemoryFiles(
          SoundImage(bytes: [], format: VHDXFormat.self, below: below), store
        ).open(.readWrite)
        for _ in 0..<6 {
          let range = random.range(in: 4 << 20, most: 300_000)
          try chain.writeBytes(random.fill(range.count), at: UInt64(range.lowerBound))
        }
        try chain.close()
        return SoundImage(bytes: store.snapshot, format: VHDXFormat.self, below: below)
      }, damages: VHDXDamage.damages),
  ]
}
