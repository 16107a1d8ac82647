import FormatEngine
import TestSupport

/// What can be damaged in a VHD: the footers, the header, the table. QEMU has no check for it.
enum VPCDamage {
  static func damages(_ image: SoundImage) -> [DamageKind] {
    let file = DamagedFile(bytes: image.bytes, isBigEndian: true)
    let (table, blocks) = (Int(file.number(at: 512 + 16)), Int(file.number(at: 512 + 28, width: 4)))
    let blockSize = Int(file.number(at: 512 + 32, width: 4))
    let places = (0..<blocks).map { table + 4 * $0 }
    let used = places.filter { file.number(at: $0, width: 4) != 0xffff_ffff }
    let isDifferencing = file.number(at: 60, width: 4) == 4
    @Sendable func tail(_ file: DamagedFile) -> Int { file.bytes.count - 512 }
    func entry(_ name: String, _ outcome: DamageKind.Outcome, _ value: UInt64) -> DamageKind {
      DamageKind(name, outcome) { file, random in file.put(value, at: used.any(&random), width: 4) }
    }
    func flip(_ name: String, _ place: @escaping @Sendable (DamagedFile) -> Int) -> DamageKind {
      DamageKind("\(name) damaged", .mended) { file, _ in file.change(place(file), width: 1) { $0 ^ 0x10 } }
    }
    return [
      flip("copy of the footer") { _ in 30 }, flip("footer") { tail($0) + 30 },
      flip("reserved bytes of the header") { _ in 512 + 900 },
      flip("checksum of the copy of the footer") { _ in 66 },
      flip("checksum of the footer") { tail($0) + 66 },
      flip("checksum of the header") { _ in 512 + 37 },
      DamageKind("footer missing", .mended) { file, _ in file.cut(to: tail(file)) },
      DamageKind("copy of the footer missing", .mended) { file, _ in file.fill(0..<512, with: 0) },
      DamageKind("both footers damaged") { file, _ in
        for place in [30, tail(file) + 30] { file.change(place, width: 1) { $0 ^ 0x10 } }
      },
      DamageKind("footers that differ", .mended) { file, _ in
        let start = tail(file)
        file.put(1 << 20, at: start + 40)
        VPCImage.sealFooter(&file.bytes, at: start)
      },
      DamageKind("room behind the blocks", .mended) { file, _ in
        let footer = Array(file.bytes.suffix(512))
        file.cut(to: tail(file))
        file.bytes += [UInt8](repeating: 0, count: blockSize * 2 + 10) + footer
      },
      DamageKind("bytes behind the footer") { file, random in file.bytes += random.bytes(5000) },
      entry("block past the end", isDifferencing ? .stays : .mended, 0x10_0000),
      entry("block at the most that there is", isDifferencing ? .stays : .mended, 0xffff_fffe),
      entry("block over the copy of the footer", .stays, 0), entry("block over the header", .stays, 1),
      entry("block over the table", .stays, UInt64(table / 512)),
      DamageKind("two blocks in one place") { file, random in
        file.put(file.number(at: used.any(&random), width: 4), at: used.any(&random), width: 4)
      },
      DamageKind("an empty block where another is", .stays) { file, random in
        let empty = places.filter { !used.contains($0) }
        guard !empty.isEmpty else { return file.put(0, at: used.any(&random), width: 4) }
        file.put(file.number(at: used.any(&random), width: 4), at: empty.any(&random), width: 4)
      },
      DamageKind("blocks that overlap") { file, random in
        file.put(file.number(at: used.any(&random), width: 4) + 1, at: used.any(&random), width: 4)
      },
      DamageKind("block cut off by the end") { file, random in
        file.put(UInt64(file.bytes.count / 512 - 2), at: used.any(&random), width: 4)
      },
      DamageKind("entry taken out") { file, random in file.put(0xffff_ffff, at: used.any(&random), width: 4)
      },
      .anyBytes(of: "the table", in: [table..<table + 4 * blocks]),
      .anyBytes(of: "the headers", in: [0..<84, 512..<1536]),
    ] + DamageKind.ofFiles(unit: 512)
  }
}

extension RepairSubject {
  static let vpc: [RepairSubject] = [
    RepairSubject(
      name: "vpc, dynamic", isJudged: false,
      make: { random in
        let built = try VPCImage().build(byteCount: 100 << 10, &random)
        return SoundImage(bytes: built.file, format: VPCFormat.self, isBigEndian: true)
      }, damages: VPCDamage.damages),
    RepairSubject(
      name: "vpc, differencing", isJudged: false,
      make: { random in
        let built = try VPCImage(blockSize: 8192, isDifferencing: true).build(byteCount: 100 << 10, &random)
        return SoundImage(bytes: built.file, format: VPCFormat.self, isBigEndian: true, below: built.below)
      }, damages: VPCDamage.damages),
    RepairSubject(
      name: "vpc, dynamic, 2 MiB blocks", isJudged: false,
      make: { random in
        try .judged(
          JudgeImage(
            format: "vpc", size: 5 << 20, options: ["force_size=on"], cluster: 2 << 20, operationCount: 4),
          isBigEndian: true, &random)
      }, damages: VPCDamage.damages),
  ]
}
