import TestSupport

private let flag: UInt64 = 1 << 63

/// L1 and L2 entries, and clusters that two things share.
extension Qcow2Places {
  /// An entry of the disk, or at times of a snapshot.
  private func entry(_ entries: [Entry], _ old: [Entry], _ random: inout SeededRandom) -> Entry {
    !old.isEmpty && random.oneIn(4) ? old.any(&random) : entries.any(&random)
  }

  private func usedL1(_ file: DamagedFile, _ random: inout SeededRandom) -> Int {
    let used = (0..<l1Count).map { l1Offset + 8 * $0 }.filter { file.number(at: $0) != 0 }
    return used.isEmpty ? l1Offset : used.any(&random)
  }

  var entryDamages: [DamageKind] { tableEntries + (stored.isEmpty ? [] : dataEntries) + packedEntries }

  private var tableEntries: [DamageKind] {
    [
      DamageKind("reserved bits in an L1 entry", .mended) { file, random in
        file.change(usedL1(file, &random)) { $0 | 1 << 60 | 4 }
      },
      DamageKind("L2 table past the end", .mended) { file, random in
        file.put(flag | 1 << 40, at: usedL1(file, &random))
      },
      DamageKind("L2 table at the most that there is", .mended) { file, random in
        file.put(flag | 0x00ff_ffff_ffff_0000, at: usedL1(file, &random))
      },
      DamageKind(
        "copied flag in L1 without a table", .mended, judgeDiffers: "it takes the header for the table"
      ) { file, random in
        file.put(flag, at: usedL1(file, &random))
      },
      DamageKind(
        "L2 table unaligned", clusterSize > 512 ? .stays : .depends,
        judgeDiffers: "it takes what stands there for a table"
      ) { file, random in
        file.change(usedL1(file, &random)) { $0 + UInt64(clusterSize / 2) & Self.offsetMask | 512 }
      },
      DamageKind("L1 entry taken out") { file, random in file.put(0, at: usedL1(file, &random)) },
    ]
  }

  private var dataEntries: [DamageKind] {
    var kinds: [DamageKind] = [
      DamageKind("reserved bits in an L2 entry", .mended) { file, random in
        file.change(entry(stored, old, &random).place) { $0 | 1 << 60 | 4 }
      },
      DamageKind("subclusters stored nowhere") { file, random in
        file.put(0, at: entry(stored, old, &random).place)
      },
    ]
    if hasSubclusters {
      kinds += [
        DamageKind("subcluster stored and zero", .mended) { file, random in
          file.put(1 << 32 | 1, at: stored.any(&random).place + 8)
        },
        DamageKind("any subclusters") { file, random in
          file.put(random.next(), at: entry(stored, old, &random).place + 8)
        },
      ]
    }
    guard !hasDataFile else {
      return kinds + [
        DamageKind("packed bytes with a data file", .stays, judgeDiffers: "it counts them as clusters") {
          file, random in
          file.put(1 << 62 | 5, at: stored.any(&random).place)
        }
      ]
    }
    // Version 2 over a backing file has no entry for zeros: there nothing is forgotten.
    kinds += [
      DamageKind("data past the end") { file, random in
        file.put(flag | 1 << 40, at: entry(stored, old, &random).place)
      },
      DamageKind("data at the most that there is") { file, random in
        file.put(flag | 0x00ff_ffff_ffff_0000, at: entry(stored, old, &random).place)
      },
      DamageKind("data just behind the end") { file, random in
        let end = (file.bytes.count + clusterSize - 1) / clusterSize * clusterSize
        file.put(flag | UInt64(end), at: entry(stored, old, &random).place)
      },
    ]
    if clusterSize > 512 {
      kinds.append(
        DamageKind("data unaligned", hasSubclusters ? .depends : .stays) { file, random in
          file.change(stored.any(&random).place) { $0 + 512 }
        })
    }
    if version > 2, !hasSubclusters {
      kinds.append(
        DamageKind("preallocated zeros past the end", .mended) { file, random in
          file.put(flag | 1 << 40 | 1, at: stored.any(&random).place)
        })
      if clusterSize > 512 {
        kinds.append(
          DamageKind("preallocated zeros unaligned", .mended) { file, random in
            file.change(stored.any(&random).place) { $0 + 512 | 1 }
          })
      }
    }
    return kinds
  }

  private var packedEntries: [DamageKind] {
    guard !stored.isEmpty, !hasDataFile else { return [] }
    var kinds: [DamageKind] = [
      DamageKind("packed bytes past the end") { file, random in
        file.put(1 << 62 | 1 << 45, at: stored.any(&random).place)
      },
      DamageKind("packed bytes in stored data") { file, random in
        let host = UInt64(stored.any(&random).hostOffset)
        file.put(1 << 62 | host, at: stored.any(&random).place)
      },
    ]
    guard !packed.isEmpty else { return kinds }
    let sizeShift = UInt64(62 - (clusterSize.trailingZeroBitCount - 8))
    kinds += [
      DamageKind("packed bytes reach far past the end") { file, random in
        file.change(packed[packed.count - 1 - random.below(min(2, packed.count))].place) {
          $0 | ((1 << 62 - 1) & ~(1 << sizeShift - 1))
        }
      },
      DamageKind("copied flag on packed bytes", .mended) { file, random in
        file.change(packed.any(&random).place) { $0 | flag }
      },
      DamageKind("packed bytes that nobody unpacks") { file, random in
        let host = Int(packed.any(&random).raw & (1 << sizeShift - 1))
        file.fill(host..<host + 64, with: 0xff)
      },
      DamageKind("packed bytes cut short") { file, random in
        file.change(packed.any(&random).place) { $0 & (1 << 62 | (1 << sizeShift - 1)) }
      },
    ]
    return kinds
  }

  // MARK: One cluster for two

  var overlaps: [DamageKind] {
    var kinds: [DamageKind] = []
    if refcountBits > 1 {
      kinds.append(
        DamageKind("one L2 table for two", judgeDiffers: "the disk has no second one") { file, random in
          file.put(UInt64(l1Count + 1), at: 36, width: 4)
          file.put(flag | UInt64(tables.any(&random)), at: l1Offset + 8 * l1Count)
        })
    }
    for (name, offset) in metadata {
      kinds.append(
        DamageKind("\(name) as an L2 table", judgeDiffers: "what it takes for entries it mends in place") {
          file, random in
          file.put(flag | UInt64(offset), at: usedL1(file, &random))
        })
    }
    guard !stored.isEmpty, !hasDataFile else { return kinds }
    for (name, offset) in metadata {
      kinds.append(
        DamageKind("data on \(name)", judgeDiffers: "counts of a shared cluster") { file, random in
          file.put(flag | UInt64(offset), at: entry(stored, old, &random).place)
        })
    }
    kinds += [
      DamageKind("data on data") { file, random in
        file.put(flag | UInt64(stored.any(&random).hostOffset), at: entry(stored, old, &random).place)
      },
      DamageKind("data as an L2 table", judgeDiffers: "what it takes for entries are anything") {
        file, random in
        file.put(flag | UInt64(stored.any(&random).hostOffset), at: usedL1(file, &random))
      },
      DamageKind("all data in one cluster", judgeDiffers: "counts of a shared cluster") { file, random in
        let host = UInt64(stored.any(&random).hostOffset)
        for entry in stored { file.put(flag | host, at: entry.place) }
      },
    ]
    return kinds
  }
}
