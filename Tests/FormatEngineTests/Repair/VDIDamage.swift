import FormatEngine
import TestSupport

/// What can be damaged in a VDI image: the block map, and the count of blocks in the header.
enum VDIDamage {
  static func damages(_ image: SoundImage) -> [DamageKind] {
    let file = DamagedFile(bytes: image.bytes)
    let map = Int(file.number(at: 340, width: 4))
    let blocks = Int(file.number(at: 384, width: 4))
    let count = Int(file.number(at: 388, width: 4))
    let unit = Int(file.number(at: 376, width: 4) + file.number(at: 380, width: 4))
    let data = Int(file.number(at: 344, width: 4))
    let rooms = (image.bytes.count - data) / unit
    let places = (0..<blocks).map { map + 4 * $0 }
    let used = places.filter { file.number(at: $0, width: 4) < 0xffff_fffe }
    func counted(_ name: String, _ value: Int) -> DamageKind {
      DamageKind("count \(name)", .mended) { file, _ in file.put(UInt64(value), at: 388, width: 4) }
    }
    func entry(_ name: String, _ value: UInt64, judgeDiffers: String? = nil) -> DamageKind {
      DamageKind(name, .mended, judgeDiffers: judgeDiffers) { file, random in
        file.put(value, at: used.any(&random), width: 4)
      }
    }
    let hole = "a hole where the count is right is no damage for it"
    return [
      counted("too high", count + 5), counted("of 0", 0), counted("too low", max(count - 1, 0)),
      counted("at the most", 0xffff_ffff),
      DamageKind("two blocks in one room") { file, random in
        let room = file.number(at: used.any(&random), width: 4)
        file.put(room, at: used.any(&random), width: 4)
      },
      DamageKind("an empty block in a room", judgeDiffers: hole) { file, random in
        let empty = places.filter { !used.contains($0) }
        let room = file.number(at: used.any(&random), width: 4)
        file.put(room, at: (empty.isEmpty ? used : empty).any(&random), width: 4)
      },
      DamageKind("all blocks in one room", judgeDiffers: hole) { file, random in
        let room = file.number(at: used.any(&random), width: 4)
        for place in places { file.put(room, at: place, width: 4) }
      },
      entry("entry out of range", UInt64(blocks + 40)), entry("largest entry", 0xffff_fffd),
      entry("entry past the end of the file", UInt64(rooms), judgeDiffers: "it does not know the file's end"),
      DamageKind("hole", .mended, judgeDiffers: hole) { file, random in
        file.put(0xffff_ffff, at: used.any(&random), width: 4)
      },
      DamageKind("entry for zeros", .mended, judgeDiffers: hole) { file, random in
        file.put(0xffff_fffe, at: used.any(&random), width: 4)
      },
      DamageKind("room with too high a number", judgeDiffers: hole) { file, random in
        let wanted = data + unit * (blocks + 1)
        if file.bytes.count < wanted, wanted < 24 << 20 {
          file.bytes += [UInt8](repeating: 7, count: wanted - file.bytes.count)
        }
        file.put(UInt64(blocks), at: used.any(&random), width: 4)
      },
      DamageKind("everything", judgeDiffers: hole) { file, random in
        for place in places { file.put(UInt64(random.below(blocks + 3)), at: place, width: 4) }
        file.put(77, at: 388, width: 4)
      },
      .anyBytes(of: "the map", in: [map..<map + 4 * blocks, 388..<392]),
    ] + DamageKind.ofFiles(unit: min(unit, 1 << 20))
  }
}

extension RepairSubject {
  static let vdi: [RepairSubject] = [
    judgedVDI("dynamic", 4 << 20, []), judgedVDI("static", 2 << 20, ["static=on"]),
    RepairSubject(
      name: "vdi, 4 KiB blocks", isJudged: false,
      make: { random in
        let entries = someEntries(&random)
        return SoundImage(
          bytes: VDIBytes(extra: random.oneIn(2) ? 512 : 0, entries: entries).bytes, format: VDIFormat.self)
      }, damages: VDIDamage.damages),
    RepairSubject(
      name: "vdi, differencing", isJudged: false,
      make: { random in
        let entries = someEntries(&random)
        return SoundImage(
          bytes: VDIBytes(type: 4, entries: entries, parent: 0xb1).bytes, format: VDIFormat.self,
          below: random.bytes(entries.count * 4096))
      }, damages: VDIDamage.damages),
  ]

  /// A map whose rooms are in any order, without a hole.
  private static func someEntries(_ random: inout SeededRandom) -> [UInt32] {
    var entries = (0..<24).map { _ in random.oneIn(3) ? VDIBytes.zeros : VDIBytes.free }
    let blocks = Array(entries.indices).shuffled(using: &random).prefix(14)
    for (room, block) in blocks.enumerated() { entries[block] = UInt32(room) }
    return entries
  }

  private static func judgedVDI(_ name: String, _ size: Int, _ options: [String]) -> RepairSubject {
    let recipe = JudgeImage(format: "vdi", size: size, options: options, cluster: 1 << 20, operationCount: 5)
    return RepairSubject(
      name: "vdi, \(name)", make: { try .judged(recipe, isBigEndian: false, &$0) }, damages: VDIDamage.damages
    )
  }
}
