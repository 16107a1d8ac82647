import TestSupport

/// The list of snapshots, and that of bitmaps.
extension Qcow2Places {
  private static let unread = "both refuse to look further"

  var snapshotDamages: [DamageKind] {
    guard !snapshots.isEmpty else {
      return [
        DamageKind("a snapshot that is not there", judgeDiffers: Self.unread) { file, _ in
          file.put(1, at: 60, width: 4)
        }
      ]
    }
    return listedSnapshots + snapshotTables
  }

  private var listedSnapshots: [DamageKind] {
    [
      // The place of the next one depends on it.
      DamageKind("snapshot with too few fields", version > 2 && snapshots.count == 1 ? .mended : .depends) {
        file, random in
        file.put(8, at: snapshots.any(&random).place + 36, width: 4)
      },
      DamageKind("one snapshot too many") { file, _ in
        file.put(UInt64(snapshots.count + 1), at: 60, width: 4)
      },
      DamageKind("snapshot with too many fields", judgeDiffers: Self.unread) { file, random in
        file.put(2000, at: snapshots.any(&random).place + 36, width: 4)
      },
      DamageKind("snapshot with a name that reaches far", judgeDiffers: Self.unread) { file, random in
        file.put(0xffff, at: snapshots.any(&random).place + 14, width: 2)
      },
      DamageKind("far too many snapshots", judgeDiffers: Self.unread) { file, _ in
        file.put(1 << 20, at: 60, width: 4)
      },
      DamageKind("as many snapshots as there may be", judgeDiffers: Self.unread) { file, _ in
        file.put(65536, at: 60, width: 4)
      },
      DamageKind("no snapshots any more", .mended) { file, _ in file.put(0, at: 60, width: 4) },
      DamageKind("snapshot table unaligned", judgeDiffers: Self.unread) { file, _ in
        file.change(64) { $0 + 8 }
      },
      DamageKind("snapshot table past the end", judgeDiffers: Self.unread) { file, _ in
        file.put(1 << 40, at: 64)
      },
      DamageKind("snapshot table on the header", judgeDiffers: Self.unread) { file, _ in
        file.put(0, at: 64)
      },
      DamageKind("snapshot of a disk of 2^62 bytes", judgeDiffers: "sizes are no matter of counts") {
        file, random in
        file.put(1 << 62, at: snapshots.any(&random).place + 48)
      },
    ]
  }

  private var snapshotTables: [DamageKind] {
    let flag: UInt64 = 1 << 63
    return [
      DamageKind("snapshot's L2 table past the end", .mended) { file, random in
        file.put(flag | 1 << 40, at: snapshots.any(&random).l1Offset)
      },
      DamageKind("snapshot's L1 table unaligned", .stays) { file, random in
        file.change(snapshots.any(&random).place) { $0 + UInt64(clusterSize / 2) & ~7 | 8 }
      },
      DamageKind("snapshot's L1 table too large", .stays) { file, random in
        file.put(0x7fff_ffff, at: snapshots.any(&random).place + 8, width: 4)
      },
      DamageKind("snapshot's L1 table past the end", judgeDiffers: "it has an I/O error") { file, random in
        file.put(1 << 40, at: snapshots.any(&random).place)
      },
      DamageKind("snapshot's L1 table cut short") { file, random in
        file.put(0, at: snapshots.any(&random).place + 8, width: 4)
      },
      DamageKind("one L1 table for the disk and its snapshot", judgeDiffers: "counts of a shared table") {
        file, random in
        file.put(UInt64(l1Offset), at: snapshots.any(&random).place)
      },
      // Its own bytes then are entries that refer to themselves.
      DamageKind("a snapshot's L1 table on the snapshot table", judgeDiffers: "entries are anything") {
        file, random in
        file.put(UInt64(snapshotTable), at: snapshots.any(&random).place)
      },
      DamageKind("a snapshot's L1 table on the header", judgeDiffers: "entries are anything") {
        file, random in
        file.put(0, at: snapshots.any(&random).place)
      },
      DamageKind("a snapshot's L1 table on data", judgeDiffers: "entries are anything") { file, random in
        if !stored.isEmpty {
          file.put(UInt64(stored.any(&random).hostOffset), at: snapshots.any(&random).place)
        }
      },
      DamageKind("snapshot's disk on data of the live one", judgeDiffers: "counts of a shared cluster") {
        file, random in
        if !stored.isEmpty, !old.isEmpty {
          file.put(UInt64(stored.any(&random).hostOffset), at: old.any(&random).place)
        }
      },
    ]
  }

  // MARK: Bitmaps

  var bitmapDamages: [DamageKind] {
    guard let place = bitmapExtension, !bitmaps.isEmpty else { return [] }
    let judge = "it does not open the image"
    func field(_ name: String, _ offset: Int, _ width: Int, _ value: UInt64) -> DamageKind {
      DamageKind("bitmaps, \(name)", judgeDiffers: judge) { file, _ in
        file.put(value, at: place + offset, width: width)
      }
    }
    func entry(_ name: String, _ offset: Int, _ width: Int, _ value: UInt64) -> DamageKind {
      DamageKind("bitmap, \(name)", judgeDiffers: judge) { file, random in
        file.put(value, at: bitmaps.any(&random).place + offset, width: width)
      }
    }
    return [
      DamageKind("bitmaps' bit missing", judgeDiffers: "bitmaps are gone, and their clusters leaked") {
        file, _ in
        file.change(88) { $0 & ~1 }
      },
      field("one too many", 0, 4, UInt64(bitmaps.count + 1)),
      field("one too few", 0, 4, UInt64(bitmaps.count - 1)),
      field("70000 of them", 0, 4, 70000), field("reserved bits", 4, 4, 1), field("no list", 8, 8, 0),
      field("a list of 1 TiB", 8, 8, 1 << 40), field("a list of 8 bytes", 8, 8, 8),
      field("list unaligned", 16, 8, UInt64(bitmapDirectory + 8)), field("list past the end", 16, 8, 1 << 40),
      field("list on the L1 table", 16, 8, UInt64(l1Offset)), field("list on the header", 16, 8, 0),
      entry("table unaligned", 0, 8, UInt64(bitmaps[0].tableOffset + 8)),
      entry("table past the end", 0, 8, 1 << 40),
      entry("table on the L1 table", 0, 8, UInt64(l1Offset)), entry("a table of no entries", 8, 4, 0),
      entry("a table of 2^31 entries", 8, 4, 1 << 31), entry("unknown flags", 12, 4, 0x80),
      entry("in use", 12, 4, 1),
      entry("another type", 16, 1, 2), entry("granules of 2^63", 17, 1, 63),
      entry("granules of 1 byte", 17, 1, 0),
      entry("a name of no bytes", 18, 2, 0), entry("a name of 60000 bytes", 18, 2, 60000),
      entry("unknown fields", 20, 4, 8), entry("fields of 4 GiB", 20, 4, 0xffff_ffff),
    ] + bitmapBits
  }

  private var bitmapBits: [DamageKind] {
    let judge = "it does not open the image"
    func bits(_ name: String, _ value: @escaping @Sendable (UInt64) -> UInt64) -> DamageKind {
      DamageKind("bits of a bitmap, \(name)", judgeDiffers: judge) { file, random in
        file.change(bitmaps.any(&random).tableOffset, value)
      }
    }
    return [
      bits("unaligned") { _ in UInt64(l1Offset + 512) }, bits("past the end") { _ in 1 << 40 },
      bits("reserved") { $0 | 2 }, bits("on the L1 table") { _ in UInt64(l1Offset) },
      bits("on the header's neighbour") { _ in UInt64(clusterSize) },
      bits("of another bitmap") { _ in UInt64(bitmaps.flatMap(\.clusters).last ?? 1) },
      bits("all ones") { _ in 1 },
      bits("none") { _ in 0 },
    ]
  }
}
