import FormatEngine
import TestSupport

private let flag: UInt64 = 1 << 63

/// What can be damaged in a qcow2 image: counts and the refcount structure. Entries, tables, snapshots and bitmaps have files
/// of their own.
extension Qcow2Places {
  static func damages(_ image: SoundImage) -> [DamageKind] {
    let places = Qcow2Places(image.bytes)
    return places.counts + places.structure + places.entryDamages + places.overlaps + places.snapshotDamages
      + places.bitmapDamages + DamageKind.ofFiles(unit: places.clusterSize) + places.bytes
  }

  private var bytes: [DamageKind] {
    // Of the header what says where the tables are: other versions and features are other images.
    var areas = [36..<68, l1Offset..<l1Offset + 64, refcountTable..<refcountTable + 16]
    areas += tables.map { $0..<$0 + 512 } + blocks.map { $0..<$0 + 64 }
    if !snapshots.isEmpty { areas.append(snapshotTable..<snapshotTable + 128) }
    if let place = bitmapExtension {
      areas += [place..<place + 24, bitmapDirectory..<bitmapDirectory + 96]
      areas += bitmaps.map { $0.tableOffset..<$0.tableOffset + 16 }
    }
    return [.anyBytes(of: "the tables", in: areas)]
  }

  // MARK: Counts

  private var counts: [DamageKind] {
    var kinds: [DamageKind] = [
      DamageKind("cluster leaked", .mended) { file, _ in
        let end = (file.bytes.count + clusterSize - 1) / clusterSize * clusterSize
        file.bytes += [UInt8](repeating: 0, count: end - file.bytes.count + 3 * clusterSize)
        setCount(&file, of: file.bytes.count / clusterSize - 2, to: 1)
      },
      DamageKind("count of the header 0", .mended) { file, _ in setCount(&file, of: 0, to: 0) },
      DamageKind("all counts 0", .mended) { file, _ in
        for block in blocks { file.fill(block..<block + clusterSize, with: 0) }
      },
      DamageKind("copied flag missing in L1", .mended) { file, random in
        let used = (0..<l1Count).map { l1Offset + 8 * $0 }.filter { file.number(at: $0) != 0 }
        if !used.isEmpty {
          let entry = used.any(&random)
          file.change(entry) { $0 ^ flag }
        }
      },
      DamageKind("some counts anything") { file, random in
        for _ in 0...random.below(6) {
          setCount(&file, of: random.below(max(fileClusters, 1)), to: random.next() % (maximumCount &+ 1 | 1))
        }
      },
      DamageKind("some counts 0", .mended) { file, random in
        for _ in 0...random.below(6) { setCount(&file, of: random.below(max(fileClusters, 1)), to: 0) }
      },
    ]
    if version > 2 {
      kinds += [
        DamageKind("marked dirty", isSilent: true) { file, _ in file.change(72) { $0 | 1 } },
        DamageKind("marked corrupt", isSilent: true) { file, _ in file.change(72) { $0 | 2 } },
      ]
    }
    for (name, offset) in metadata {
      kinds.append(
        DamageKind("count of \(name) 0", .mended) { file, _ in
          setCount(&file, of: offset / clusterSize, to: 0)
        })
    }
    if !stored.isEmpty, !hasDataFile {
      kinds.append(
        DamageKind("count of data 0", .mended) { file, random in
          setCount(&file, of: stored.any(&random).hostOffset / clusterSize, to: 0)
        })
    }
    if !stored.isEmpty {
      kinds.append(
        DamageKind("copied flag wrong", .mended) { file, random in
          file.change(stored.any(&random).place) { $0 ^ flag }
        })
    }
    // Counts of one bit can neither be too high nor count two references.
    if refcountBits > 1 {
      kinds.append(
        DamageKind("all counts at their most", .mended) { file, _ in
          // With large clusters not so many that what is new goes behind some GiB.
          for block in blocks {
            file.fill(block..<block + (clusterSize > 4096 ? 512 : clusterSize), with: 0xff)
          }
        })
      if !stored.isEmpty, !hasDataFile {
        kinds.append(
          DamageKind("count too high", .mended) { file, random in
            setCount(&file, of: stored.any(&random).hostOffset / clusterSize, to: min(7, maximumCount))
          })
      }
    }
    if !shared.isEmpty {
      kinds.append(
        DamageKind("copied flag on a shared cluster", .mended) { file, random in
          file.change(shared.any(&random).place) { $0 | flag }
        })
      kinds.append(
        DamageKind("count of a shared cluster too low", .mended) { file, random in
          setCount(&file, of: shared.any(&random).hostOffset / clusterSize, to: 1)
        })
    }
    return kinds
  }

  // MARK: The refcount structure

  private var structure: [DamageKind] {
    let past2to63 = "blocks past 2^63 are I/O errors for it"
    var kinds: [DamageKind] = [
      DamageKind("no refcount table", .mended) { file, _ in
        file.put(0, at: 48)
        file.put(0, at: 56, width: 4)
      },
      DamageKind("refcount table unaligned", .mended, judgeDiffers: "it does not open the image") { file, _ in
        file.change(48) { $0 + 8 }
      },
      DamageKind("refcount table past the end", .mended) { file, _ in file.put(1 << 40, at: 48) },
      DamageKind("refcount table too large", .mended, judgeDiffers: "it does not open the image") { file, _ in
        file.put(1 << 20, at: 56, width: 4)
      },
      DamageKind("refcount table on the header", .mended, judgeDiffers: past2to63) { file, _ in
        file.put(0, at: 48)
      },
      DamageKind("refcount table on the L1 table", .mended, judgeDiffers: past2to63) { file, _ in
        file.put(UInt64(l1Offset), at: 48)
      },
      DamageKind("refcount table reaches over what is behind it", .mended, judgeDiffers: past2to63) {
        file, _ in
        file.change(56, width: 4) { $0 + 1 }
      },
      DamageKind("refcount block missing", .mended) { file, random in
        file.put(0, at: refcountTable + 8 * random.below(blocks.count))
      },
      DamageKind("refcount block unaligned", .mended) { file, random in
        file.change(refcountTable + 8 * random.below(blocks.count)) { $0 + UInt64(clusterSize / 2) }
      },
      DamageKind("refcount block past the end", .mended) { file, random in
        file.put(1 << 41, at: refcountTable + 8 * random.below(blocks.count))
      },
      DamageKind("another refcount block past the end", .mended) { file, _ in
        file.put(1 << 41, at: refcountTable + 8 * blocks.count)
      },
      DamageKind("refcount block with reserved bits", .mended) { file, random in
        file.change(refcountTable + 8 * random.below(blocks.count)) { $0 | 5 }
      },
      DamageKind("refcount block twice", .mended) { file, random in
        file.put(UInt64(blocks.any(&random)), at: refcountTable + 8 * blocks.count)
      },
    ]
    if !stored.isEmpty, !hasDataFile {
      kinds += [
        DamageKind("refcount table on data", .mended, judgeDiffers: past2to63) { file, random in
          file.put(UInt64(stored.any(&random).hostOffset), at: 48)
        },
        DamageKind("refcount block on data", .mended) { file, random in
          file.put(UInt64(stored.any(&random).hostOffset), at: refcountTable)
        },
      ]
    }
    for (name, offset) in metadata where name != "the refcount table" && name != "a refcount block" {
      kinds.append(
        DamageKind("refcount block on \(name)", .mended) { file, _ in
          file.put(UInt64(offset), at: refcountTable)
        })
    }
    return kinds
  }
}

extension RepairSubject {
  static let qcow2: [RepairSubject] = [
    qcow2("plain", 4096, []),
    qcow2("512 B clusters", 512, []),
    qcow2("64 KiB clusters", 65536, [], size: 1 << 20),
    qcow2("version 2", 4096, ["compat=0.10"]),
    qcow2("version 2, backing", 4096, ["compat=0.10"]) { $0.hasShortRawBase = true },
    qcow2("backing", 4096, []) { $0.hasShortRawBase = true },
    qcow2("snapshots", 4096, []) { $0.snapshotCount = 2 },
    qcow2("snapshots, version 2, backing", 4096, ["compat=0.10"]) {
      $0.snapshotCount = 2
      $0.hasShortRawBase = true
    },
    qcow2("packed", 4096, []) { $0.writesCompressed = true },
    qcow2("packed, snapshots", 4096, []) {
      $0.writesCompressed = true
      $0.snapshotCount = 1
    },
    qcow2("packed, zstd", 4096, ["compression_type=zstd"]) { $0.writesCompressed = true },
    qcow2("subclusters", 16384, ["extended_l2=on"], size: 512 << 10),
    qcow2("subclusters, packed, backing, snapshots", 16384, ["extended_l2=on"], size: 512 << 10) {
      $0.hasShortRawBase = true
      $0.writesCompressed = true
      $0.snapshotCount = 1
    },
    qcow2("1-bit counts", 4096, ["refcount_bits=1"]),
    qcow2("2-bit counts, snapshots", 4096, ["refcount_bits=2"]) { $0.snapshotCount = 1 },
    qcow2("64-bit counts", 4096, ["refcount_bits=64"]),
    qcow2("preallocated", 4096, ["preallocation=metadata"]),
    qcow2("data file", 4096, ["data_file=image.data"]),
    qcow2("data file, subclusters", 16384, ["data_file=image.data", "extended_l2=on"], size: 512 << 10),
    qcow2("bitmaps", 4096, []) { $0.bitmapCount = 3 },
    qcow2("bitmaps, snapshots", 4096, []) {
      $0.bitmapCount = 2
      $0.snapshotCount = 2
    },
    qcow2("LUKS", 65536, ["encrypt.format=luks", "encrypt.iter-time=1"], size: 1 << 20) {
      $0.passphrase = "open sesame"
    },
    qcow2("LUKS, snapshots", 65536, ["encrypt.format=luks", "encrypt.iter-time=1"], size: 1 << 20) {
      $0.passphrase = "open sesame"
      $0.snapshotCount = 1
    },
    qcow2("AES", 4096, ["encrypt.format=aes"]) { $0.passphrase = "open sesame" },
  ]

  private static func qcow2(
    _ name: String, _ cluster: Int, _ options: [String], size: Int = 160 << 10,
    _ change: (inout JudgeImage) -> Void = { _ in }
  ) -> RepairSubject {
    var recipe = JudgeImage(
      size: size, options: ["cluster_size=\(cluster)"] + options, cluster: cluster, operationCount: 10)
    change(&recipe)
    return RepairSubject(
      name: "qcow2, \(name)", make: { [recipe] in try .judged(recipe, isBigEndian: true, &$0) },
      damages: Qcow2Places.damages)
  }
}
