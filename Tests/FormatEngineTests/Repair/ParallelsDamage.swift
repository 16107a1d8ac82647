import TestSupport

@testable import FormatEngine

/// What can be damaged in a Parallels image: the header's marks and the BAT.
enum ParallelsDamage {
  static func damages(_ image: SoundImage) -> [DamageKind] {
    let file = DamagedFile(bytes: image.bytes)
    let isExtended = image.bytes.starts(with: Array("WithouFreSpacExt".utf8))
    let clusterSize = Int(file.number(at: 28, width: 4)) * 512
    let count = Int(file.number(at: 32, width: 4))
    let unit = isExtended ? clusterSize : 512
    let places = (0..<count).map { 64 + 4 * $0 }
    let used = places.filter { file.number(at: $0, width: 4) != 0 }
    let end = image.bytes.count
    let old = "Debian's 7.2 does not know this damage, or mends it otherwise"
    func entry(
      _ name: String, _ value: UInt64, _ outcome: DamageKind.Outcome = .mended, judgeDiffers: String? = nil
    ) -> DamageKind {
      DamageKind(name, outcome, judgeDiffers: judgeDiffers) { file, random in
        file.put(value, at: used.any(&random), width: 4)
      }
    }
    func header(_ name: String, at offset: Int, _ value: UInt64, judgeDiffers: String? = nil) -> DamageKind {
      DamageKind(name, .mended, judgeDiffers: judgeDiffers) { file, _ in
        file.put(value, at: offset, width: 4)
      }
    }
    return [
      header("in use", at: 44, UInt64(ParallelsHeader.inUseMark)),
      header("no data offset", at: 48, 0xffff_ffff, judgeDiffers: old),
      header("data offset inside of the BAT", at: 48, 1 << 31 | 1, judgeDiffers: old),
      entry("cluster at the end of the file", UInt64((end + unit - 1) / unit), judgeDiffers: old),
      entry("cluster far outside", 0xffff_ffff),
      // Where entries count clusters there is no room for one inside of the header.
      entry("cluster in the header", 1, .depends, judgeDiffers: old),
      DamageKind("two of one cluster", judgeDiffers: old) { file, random in
        file.put(file.number(at: used.any(&random), width: 4), at: used.any(&random), width: 4)
      },
      DamageKind("an empty one in another's cluster", judgeDiffers: old) { file, random in
        file.put(file.number(at: used.any(&random), width: 4), at: places.any(&random), width: 4)
      },
      DamageKind("all of one cluster", judgeDiffers: old) { file, random in
        let entry = file.number(at: used.any(&random), width: 4)
        for place in places { file.put(entry, at: place, width: 4) }
      },
      DamageKind("clusters that overlap", judgeDiffers: old) { file, random in
        file.change(used.any(&random), width: 4) { $0 + 1 }
      },
      DamageKind("entry taken out", judgeDiffers: old) { file, random in
        file.put(0, at: used.any(&random), width: 4)
      },
      DamageKind("room at the end", .mended, judgeDiffers: old) { file, _ in
        file.bytes += [UInt8](repeating: 5, count: 3 * clusterSize / 2 / 512 * 512)
      },
      DamageKind("extension that is not there", .mended, judgeDiffers: old) { file, random in
        file.put(random.oneIn(2) ? 1 << 40 : 2, at: 56)
      },
      .anyBytes(of: "the BAT", in: [64..<64 + 4 * count]), .anyBytes(of: "the header", in: [44..<64]),
    ] + DamageKind.ofFiles(unit: clusterSize)
  }
}

extension RepairSubject {
  static let parallels: [RepairSubject] =
    [(4096, 160 << 10), (63 * 512, 1 << 20), (65536, 1 << 20)].map { (cluster, size) in
      let recipe = JudgeImage(
        format: "parallels", size: size, options: ["cluster_size=\(cluster)"], cluster: cluster,
        operationCount: 10)
      return RepairSubject(
        name: "parallels, \(cluster) B clusters",
        make: { random in
          var image = try SoundImage.judged(recipe, isBigEndian: false, &random)
          image.tables = [0..<Int(DamagedFile(bytes: image.bytes).number(at: 48, width: 4)) * 512]
          return image
        },
        damages: ParallelsDamage.damages)
    } + [
      RepairSubject(
        name: "parallels, plain dialect", isCountedByJudge: false,
        make: { random in
          var image = ParallelsImage(isExtended: false, clusterSectors: 16, sectorCount: 512)
          image.storedCount = 14
          let guests = Array(0..<32).shuffled(using: &random)
          for place in 0..<image.storedCount { image.places[guests[place]] = place }
          image.dataSector = random.oneIn(2) ? nil : 3
          var sound = SoundImage(bytes: image.build(&random), format: ParallelsFormat.self)
          sound.tables = [0..<image.dataOffset]
          return sound
        }, damages: ParallelsDamage.damages)
    ]
}
