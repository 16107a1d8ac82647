import TestSupport

@testable import FormatEngine

/// What can be damaged in sparse extents of VMware's: directories, tables and their copies, grains.
enum VMDKDamage {
  /// Where the entries of a directory, of its tables, and of their copies are.
  private struct Places: Sendable {
    var grainSize = 0
    var directories: [Int] = []
    /// Of each directory, its entries' places and what they name.
    var tables: [[(place: Int, offset: Int)]] = []
    /// Of each directory, the entries of grains that are stored.
    var grains: [[Int]] = []

    init(_ file: DamagedFile, _ directories: [Int], directoryCount: Int, tableCount: Int, grainSize: Int) {
      self.grainSize = grainSize
      self.directories = directories
      for directory in directories {
        let tables = (0..<directoryCount).map { directory + 4 * $0 }.map {
          (place: $0, offset: Int(file.number(at: $0, width: 4)) * 512)
        }.filter { $0.offset > 0 }
        self.tables.append(tables)
        grains.append(
          tables.flatMap { table in
            (0..<tableCount).map { table.offset + 4 * $0 }.filter { file.number(at: $0, width: 4) > 1 }
          })
      }
    }

    var copyCount: Int { directories.count }

    /// Host ranges of all of it.
    func ranges(tableCount: Int) -> [Range<Int>] {
      [0..<512] + directories.map { $0..<$0 + 512 }
        + tables.flatMap { $0 }.map { $0.offset..<$0.offset + 4 * tableCount }
    }
  }

  private static func hostedPlaces(_ image: SoundImage) -> Places {
    let file = DamagedFile(bytes: image.bytes)
    let grain = Int(file.number(at: 20)) * 512
    let perTable = Int(file.number(at: 44, width: 4))
    let capacity = Int(file.number(at: 12)) * 512
    let flags = file.number(at: 8, width: 4)
    var directories = [Int(clamping: file.number(at: 56)) &* 512]
    if flags & 2 != 0 { directories.append(Int(clamping: file.number(at: 48)) &* 512) }
    if file.number(at: 56) == .max {
      // A stream: the footer at its end has the place.
      directories = [Int(file.number(at: file.bytes.count - 1024 + 56)) * 512]
    }
    return Places(
      file, directories, directoryCount: (capacity + grain * perTable - 1) / (grain * perTable),
      tableCount: perTable, grainSize: grain)
  }

  /// Where everything is that is no grain.
  static func tables(ofHosted image: SoundImage) -> [Range<Int>] {
    // Header and descriptor stand before all else.
    let places = hostedPlaces(image)
    return places.ranges(tableCount: 512) + [0..<(places.directories.min() ?? 512)]
  }

  static func tables(ofCOWD image: SoundImage) -> [Range<Int>] { cowdPlaces(image).ranges(tableCount: 4096) }

  static func hosted(_ image: SoundImage) -> [DamageKind] {
    let places = hostedPlaces(image)
    return entries(places) + (places.copyCount > 1 ? copies(places) : []) + [
      .anyBytes(of: "the header", in: [8..<73]),
      DamageKind("marked as not closed", isSilent: true) { file, _ in file.put(1, at: 72, width: 1) },
    ] + DamageKind.ofFiles(unit: places.grainSize)
  }

  private static func cowdPlaces(_ image: SoundImage) -> Places {
    let file = DamagedFile(bytes: image.bytes)
    return Places(
      file, [Int(file.number(at: 20, width: 4)) * 512], directoryCount: Int(file.number(at: 24, width: 4)),
      tableCount: 4096, grainSize: Int(file.number(at: 16, width: 4)) * 512)
  }

  static func cowd(_ image: SoundImage) -> [DamageKind] {
    let places = cowdPlaces(image)
    return entries(places) + [.anyBytes(of: "the header", in: [4..<32])]
      + DamageKind.ofFiles(unit: places.grainSize)
  }

  private static func entries(_ places: Places) -> [DamageKind] {
    let judge = "it looks for entries behind the end of the file only"
    func grain(_ name: String, _ value: UInt64) -> DamageKind {
      DamageKind(name, judgeDiffers: judge) { file, random in
        file.put(value, at: places.grains[0].any(&random), width: 4)
      }
    }
    func table(_ name: String, _ value: UInt64) -> DamageKind {
      DamageKind(name, judgeDiffers: judge) { file, random in
        file.put(value, at: places.tables[0].any(&random).place, width: 4)
      }
    }
    let first = places.tables[0][0].offset / 512
    return [
      grain("grain past the end", 0x7fff_ffff), grain("grain at the most that there is", 0xffff_ffff),
      grain("grain on the header", 0), grain("grain for zeros", 1),
      grain("grain on the first sector behind", 2),
      grain("grain on a table", UInt64(first)),
      grain("grain on the directory", UInt64(places.directories[0] / 512)),
      DamageKind("two grains in one place", judgeDiffers: judge) { file, random in
        let other = file.number(at: places.grains[0].any(&random), width: 4)
        file.put(other, at: places.grains[0].any(&random), width: 4)
      },
      DamageKind("grains that overlap", judgeDiffers: judge) { file, random in
        file.change(places.grains[0].any(&random), width: 4) { $0 &+ 1 }
      },
      table("table past the end", 0x7fff_ffff), table("table on the header", 1),
      DamageKind(
        "table taken out", judgeDiffers: judge, ambiguity: "the redundant table says what was lost"
      ) { file, random in file.put(0, at: places.tables[0].any(&random).place, width: 4) },
      DamageKind("table on grains", judgeDiffers: judge) { file, random in
        let other = file.number(at: places.grains[0].any(&random), width: 4)
        file.put(other, at: places.tables[0].any(&random).place, width: 4)
      },
      .anyBytes(
        of: "the tables",
        in: places.tables.flatMap { $0 }.map { $0.offset..<$0.offset + 64 }),
    ]
  }

  /// The redundant tables, and both at once.
  private static func copies(_ places: Places) -> [DamageKind] {
    let judge = "it does not look at copies"
    return [
      DamageKind("copy of a table past the end", judgeDiffers: judge) { file, random in
        file.put(0x7fff_ffff, at: places.tables[1].any(&random).place, width: 4)
      },
      DamageKind("copy of a table taken out", judgeDiffers: judge) { file, random in
        file.put(0, at: places.tables[1].any(&random).place, width: 4)
      },
      DamageKind("copy of a grain's entry wrong", judgeDiffers: judge) { file, random in
        file.put(UInt64(random.below(1 << 16)), at: places.grains[1].any(&random), width: 4)
      },
      DamageKind("copy of an entry taken out", .mended, judgeDiffers: judge) { file, random in
        file.put(0, at: places.grains[1].any(&random), width: 4)
      },
      DamageKind("a grain past the end in both copies", judgeDiffers: judge) { file, random in
        let index = random.below(min(places.grains[0].count, places.grains[1].count))
        for copy in 0..<2 { file.put(0x7fff_ffff, at: places.grains[copy][index], width: 4) }
      },
      DamageKind("one table for both copies", judgeDiffers: judge) { file, random in
        file.put(UInt64(places.tables[0][0].offset / 512), at: places.tables[1].any(&random).place, width: 4)
      },
    ]
  }

  /// A space-efficient extent: 64-bit entries, tables and grains by numbers.
  static func spaceEfficient(_ image: SoundImage) -> [DamageKind] {
    let file = DamagedFile(bytes: image.bytes)
    let (directory, tables) = (4 * 512, Int(file.number(at: 8 * 18)) * 512)
    let grains = (0..<4096).map { tables + 8 * $0 }.filter { file.number(at: $0) >> 60 == 3 }
    func grain(_ name: String, _ value: UInt64) -> DamageKind {
      DamageKind(name) { file, random in file.put(value, at: grains.any(&random)) }
    }
    func table(_ name: String, _ value: UInt64) -> DamageKind {
      DamageKind(name) { file, random in file.put(value, at: directory) }
    }
    return [
      grain("grain past the end", 3 << 60 | 0xffff_ffff), grain("grain of an unknown kind", 9 << 60),
      grain("grain at the most that there is", 3 << 60 | (1 << 60 - 1)),
      DamageKind("two grains in one place") { file, random in
        file.put(file.number(at: grains.any(&random)), at: grains.any(&random))
      },
      table("table past the end", 1 << 60 | 99999), table("table of an unknown kind", 7 << 60),
      .anyBytes(of: "the header", in: [0..<208]), .anyBytes(of: "the table", in: [tables..<tables + 256]),
    ] + DamageKind.ofFiles(unit: 4096)
  }
}

extension RepairSubject {
  static let vmdk: [RepairSubject] = [
    judgedVMDK("sparse", []), judgedVMDK("sparse, zeroed grains", ["zeroed_grain=on"]),
    RepairSubject(
      name: "vmdk, stream", isJudged: false, isWritable: false,
      make: { random in
        var disk = ModelDisk(byteCount: 1 << 20)
        for _ in 0..<6 {
          let range = random.range(in: disk.byteCount, most: 200_000, unit: 65536)
          disk.write(random.bytes(range.count), at: range.lowerBound)
        }
        disk.write(random.bytes(1000), at: 5)
        var image = SoundImage(bytes: try VMDKStreamTests.packed(disk.bytes), format: VMDKFormat.self)
        image.tables = VMDKDamage.tables(ofHosted: image)
        return image
      }, damages: VMDKDamage.hosted),
  ]

  private static func judgedVMDK(_ name: String, _ options: [String]) -> RepairSubject {
    let recipe = JudgeImage(
      format: "vmdk", size: 2 << 20, options: options, cluster: 65536, operationCount: 10)
    return RepairSubject(
      name: "vmdk, \(name)", isCountedByJudge: false,
      make: { random in
        var image = try SoundImage.judged(recipe, isBigEndian: false, &random)
        image.tables = VMDKDamage.tables(ofHosted: image)
        return image
      },
      damages: VMDKDamage.hosted)
  }

  static let vmdkServers: [RepairSubject] = [
    server("COWD", "vmfsSparse", "VMFSSPARSE", isWritable: true, VMDKDamage.cowd) { size, grains in
      VMDKServerImages.cowd(size: size, grainSectors: 8, grains)
    },
    server("seSparse", "seSparse", "SESPARSE", isWritable: false, VMDKDamage.spaceEfficient) { size, grains in
      VMDKServerImages.spaceEfficient(size: size, grains)
    },
  ]

  private static func server(
    _ name: String, _ type: String, _ extent: String, isWritable: Bool,
    _ damages: @escaping @Sendable (SoundImage) -> [DamageKind],
    _ build: @escaping @Sendable (Int, [Int: [UInt8]]) -> [UInt8]
  ) -> RepairSubject {
    RepairSubject(
      name: "vmdk, \(name)", isJudged: false, isWritable: isWritable,
      make: { random in
        let size = 512 << 10
        var grains: [Int: [UInt8]] = [:]
        for _ in 0..<20 { grains[random.below(size / 4096)] = random.bytes(4096) }
        var image = SoundImage(bytes: build(size, grains), format: VMDKFormat.self, below: random.bytes(size))
        image.extent = (
          VMDKServerImages.descriptor(type, extent, size: size, "image-delta.vmdk", parent: "base.vmdk"),
          "image-delta.vmdk", "extents.0"
        )
        if extent == "VMFSSPARSE" { image.tables = VMDKDamage.tables(ofCOWD: image) }
        return image
      }, damages: damages)
  }
}
