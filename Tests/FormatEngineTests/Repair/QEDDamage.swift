import TestSupport

/// Where everything is in a sound QED image, or one of qcow, which is built alike: one table of tables, and no counts.
struct TwoLevelPlaces: Sendable {
  let clusterSize: Int
  let l1Offset: Int
  let l1Count: Int
  let l2Count: Int
  /// Places of L1 entries that name a table, and the tables.
  private(set) var tables: [(place: Int, offset: Int)] = []
  /// Places of L2 entries that name a cluster.
  private(set) var stored: [(place: Int, offset: Int)] = []
  private(set) var packed: [Int] = []
  private(set) var empty: [Int] = []

  init(qed bytes: [UInt8]) {
    let file = DamagedFile(bytes: bytes)
    clusterSize = Int(file.number(at: 4, width: 4))
    l1Offset = Int(file.number(at: 40))
    l1Count = clusterSize * Int(file.number(at: 8, width: 4)) / 8
    l2Count = l1Count
    walk(file) { $0 > 1 }
  }

  init(qcow bytes: [UInt8]) {
    let file = DamagedFile(bytes: bytes, isBigEndian: true)
    clusterSize = 1 << Int(file.number(at: 32, width: 1))
    l2Count = 1 << Int(file.number(at: 33, width: 1))
    l1Offset = Int(file.number(at: 40))
    let size = Int(file.number(at: 24))
    l1Count = (size + clusterSize * l2Count - 1) / (clusterSize * l2Count)
    walk(file) { $0 > 0 }
  }

  private mutating func walk(_ file: DamagedFile, _ isStored: (UInt64) -> Bool) {
    for index in 0..<l1Count {
      let table = Int(clamping: file.number(at: l1Offset + 8 * index))
      guard table != 0 else { continue }
      tables.append((l1Offset + 8 * index, table))
      for number in 0..<l2Count {
        let place = table + 8 * number
        let raw = file.number(at: place)
        if raw >= 1 << 63 {
          packed.append(place)
        } else if isStored(raw) {
          stored.append((place, Int(raw)))
        } else {
          empty.append(place)
        }
      }
    }
  }

  private func entry(_ name: String, _ outcome: DamageKind.Outcome = .depends, _ value: UInt64) -> DamageKind
  {
    DamageKind(name, outcome) { file, random in file.put(value, at: stored.any(&random).place) }
  }

  private func table(_ name: String, _ outcome: DamageKind.Outcome = .depends, _ value: UInt64) -> DamageKind
  {
    DamageKind(name, outcome) { file, random in file.put(value, at: tables.any(&random).place) }
  }

  /// What both formats have. `past`: an offset far behind the end.
  private func common(past: UInt64) -> [DamageKind] {
    [
      entry("cluster past the end", .mended, past),
      entry("cluster in the L1 table", .stays, UInt64(l1Offset)),
      table("table past the end", .mended, past),
      DamageKind("cluster in an L2 table", .stays) { file, random in
        file.put(UInt64(tables.any(&random).offset), at: stored.any(&random).place)
      },
      DamageKind("cluster used twice", .stays) { file, random in
        file.put(UInt64(stored.any(&random).offset), at: empty.any(&random))
      },
      DamageKind("all clusters the same", .stays) { file, random in
        let offset = UInt64(stored.any(&random).offset)
        for entry in stored { file.put(offset, at: entry.place) }
      },
      DamageKind("table on data") { file, random in
        file.put(UInt64(stored.any(&random).offset), at: tables.any(&random).place)
      },
      // Its bytes are entries that lead nowhere, then: to take those out would be to change what the guest has.
      DamageKind("data as one more table") { file, random in
        let free = (0..<l1Count).map { l1Offset + 8 * $0 }.filter { place in
          !tables.contains { $0.place == place }
        }
        if !free.isEmpty { file.put(UInt64(stored[0].offset), at: free.any(&random)) }
      },
      DamageKind("table on data of a later one") { file, random in
        let last = tables[tables.count - 1].offset
        let later = stored.filter { $0.place >= last && $0.place < last + 8 * l2Count }
        if tables.count > 1, !later.isEmpty {
          file.put(UInt64(later.any(&random).offset), at: tables[0].place)
        }
      },
      DamageKind("table on the L1 table") { file, random in
        file.put(UInt64(l1Offset), at: tables.any(&random).place)
      },
      DamageKind("table that reaches past the end") { file, random in
        file.put(
          UInt64(file.bytes.count / clusterSize * clusterSize - clusterSize), at: tables.any(&random).place)
      },
      DamageKind("table taken out") { file, random in file.put(0, at: tables.any(&random).place) },
      DamageKind("clusters leaked at the end", .mended) { file, _ in
        let end = (file.bytes.count + clusterSize - 1) / clusterSize * clusterSize
        file.bytes += [UInt8](repeating: 3, count: end - file.bytes.count + 2 * clusterSize)
      },
      .anyBytes(
        of: "the tables", in: tables.map { $0.offset..<$0.offset + 256 } + [l1Offset..<l1Offset + 32]),
    ] + DamageKind.ofFiles(unit: clusterSize)
  }

  static func qedDamages(_ image: SoundImage) -> [DamageKind] {
    let places = TwoLevelPlaces(qed: image.bytes)
    let lastL1 = places.l1Offset + 8 * (places.l1Count - 1)
    return places.common(past: 1 << 40) + [
      places.entry("cluster not aligned", .mended, UInt64(places.clusterSize + 512)),
      places.entry("cluster in the header", .mended, UInt64(places.clusterSize / 2)),
      places.entry("cluster at the most that there is", .mended, .max &- UInt64(places.clusterSize) &+ 1),
      places.table("table not aligned", .mended, UInt64(2 * places.clusterSize + 8)),
      DamageKind("table twice", .stays) { file, random in
        file.put(UInt64(places.tables.any(&random).offset), at: lastL1)
      },
      DamageKind("marked as not closed", isSilent: true) { file, _ in file.change(16) { $0 | 2 } },
      DamageKind("unknown autoclear features", isSilent: true) { file, _ in file.put(6, at: 32) },
      DamageKind("not closed, and a cluster past the end", .mended) { file, random in
        file.change(16) { $0 | 2 }
        file.put(1 << 40, at: places.stored.any(&random).place)
      },
      .anyBytes(of: "the header", in: [40..<56]),
    ]
  }

  static func qcowDamages(_ image: SoundImage) -> [DamageKind] {
    let places = TwoLevelPlaces(qcow: image.bytes)
    // Of five bytes.
    let packed: UInt64 = 1 << 63 | 5 << UInt64(63 - places.clusterSize.trailingZeroBitCount)
    var kinds =
      places.common(past: 1 << 40) + [
        places.entry("cluster in the header", .depends, 512), places.entry("cluster not aligned", .stays, 1),
        places.entry("packed cluster past the end", .mended, packed | 1 << 40),
        places.entry("packed cluster of no bytes", .mended, 1 << 63 | 8192),
        DamageKind("packed cluster in a stored one", .stays) { file, random in
          let other = places.stored.any(&random)
          file.put(packed | UInt64(other.offset), at: places.empty.any(&random))
        },
        .anyBytes(of: "the header", in: [24..<32, 40..<48]),
      ]
    if !places.packed.isEmpty {
      kinds.append(
        DamageKind("packed bytes that nobody unpacks", isSilent: true) { file, random in
          let host = Int(file.number(at: places.packed.any(&random)) & (1 << 51 - 1))
          file.fill(host..<host + 32, with: 0xff)
        })
    }
    return kinds
  }
}

extension RepairSubject {
  static let qed: [RepairSubject] = [
    qed("4 KiB clusters", 4096, 160 << 10), qed("64 KiB clusters", 65536, 1 << 20),
    qed("backing", 4096, 160 << 10) { $0.hasShortRawBase = true },
  ]

  private static func qed(
    _ name: String, _ cluster: Int, _ size: Int, _ change: (inout JudgeImage) -> Void = { _ in }
  ) -> RepairSubject {
    var recipe = JudgeImage(
      format: "qed", size: size, options: ["cluster_size=\(cluster)", "table_size=2"], cluster: cluster,
      operationCount: 10)
    change(&recipe)
    return RepairSubject(
      name: "qed, \(name)", keepsLeaks: true,
      make: { [recipe] in try .judged(recipe, isBigEndian: false, &$0) },
      damages: TwoLevelPlaces.qedDamages)
  }

  static let qcow: [RepairSubject] = [
    qcow("plain"),
    qcow("several tables") {
      // Over another file clusters have 512 bytes, and a table covers 2 MiB.
      $0.hasShortRawBase = true
      $0.size = 5 << 20
    },
    qcow("packed") { $0.writesCompressed = true }, qcow("backing") { $0.hasShortRawBase = true },
    qcow("AES") {
      $0.options = ["encrypt.format=aes"]
      $0.passphrase = "open sesame"
    },
  ]

  private static func qcow(_ name: String, _ change: (inout JudgeImage) -> Void = { _ in }) -> RepairSubject {
    var recipe = JudgeImage(format: "qcow", size: 160 << 10, cluster: 4096, operationCount: 10)
    change(&recipe)
    return RepairSubject(
      name: "qcow, \(name)", isJudged: false,
      make: { [recipe] in try .judged(recipe, isBigEndian: true, &$0) },
      damages: TwoLevelPlaces.qcowDamages)
  }
}
