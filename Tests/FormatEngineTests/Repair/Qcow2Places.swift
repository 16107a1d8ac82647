/// Where everything is in a sound qcow2 image.
struct Qcow2Places: Sendable {
  /// An L2 entry.
  struct Entry: Sendable {
    var place: Int
    var guestCluster: Int
    var raw: UInt64
    var bitmap: UInt64

    var isCompressed: Bool { raw & 1 << 62 != 0 }
    var hostOffset: Int { isCompressed ? 0 : Int(raw & Qcow2Places.offsetMask) }
    var isCopied: Bool { raw & 1 << 63 != 0 }
  }

  struct Snapshot: Sendable {
    var place: Int
    var l1Offset: Int
    var l1Count: Int
    var tables: [Int]
    var entries: [Entry]
  }

  struct Bitmap: Sendable {
    var place: Int
    var tableOffset: Int
    var tableCount: Int
    /// Host offsets of its bits.
    var clusters: [Int]
  }

  static let offsetMask: UInt64 = 0x00ff_ffff_ffff_fe00

  let version: Int
  let clusterSize: Int
  let refcountBits: Int
  let hasSubclusters: Bool
  let hasDataFile: Bool
  let l1Offset: Int
  let l1Count: Int
  private(set) var tables: [Int] = []
  private(set) var entries: [Entry] = []
  let refcountTable: Int
  let refcountTableClusters: Int
  let blocks: [Int]
  let snapshotTable: Int
  private(set) var snapshots: [Snapshot] = []
  /// Of the header extension's content.
  private(set) var bitmapExtension: Int?
  private(set) var bitmapDirectory = 0
  private(set) var bitmaps: [Bitmap] = []
  private(set) var encryptionExtension: Int?
  private(set) var encryptionHeader = 0
  let fileClusters: Int

  init(_ bytes: [UInt8]) {
    let file = DamagedFile(bytes: bytes, isBigEndian: true)
    version = Int(file.number(at: 4, width: 4))
    clusterSize = 1 << Int(file.number(at: 20, width: 4))
    refcountBits = version == 2 ? 16 : 1 << Int(file.number(at: 96, width: 4))
    hasSubclusters = version > 2 && file.number(at: 72) & 16 != 0
    hasDataFile = version > 2 && file.number(at: 72) & 4 != 0
    l1Offset = Int(file.number(at: 40))
    l1Count = Int(file.number(at: 36, width: 4))
    refcountTable = Int(file.number(at: 48))
    refcountTableClusters = Int(file.number(at: 56, width: 4))
    snapshotTable = Int(file.number(at: 64))
    fileClusters = bytes.count / clusterSize
    blocks = (0..<refcountTableClusters * clusterSize / 8).map { [refcountTable] in
      Int(file.number(at: refcountTable + 8 * $0))
    }.filter { $0 != 0 }
    (tables, entries) = walk(file, l1Offset, l1Count)
    readSnapshots(file)
    readExtensions(file)
  }

  private func walk(_ file: DamagedFile, _ l1: Int, _ count: Int) -> ([Int], [Entry]) {
    var tables: [Int] = []
    var entries: [Entry] = []
    let width = hasSubclusters ? 16 : 8
    for index in 0..<count {
      let table = Int(file.number(at: l1 + 8 * index) & Self.offsetMask)
      guard table != 0 else { continue }
      tables.append(table)
      for number in 0..<clusterSize / width {
        let place = table + number * width
        let entry = Entry(
          place: place, guestCluster: index * clusterSize / width + number, raw: file.number(at: place),
          bitmap: hasSubclusters ? file.number(at: place + 8) : 0)
        if entry.raw != 0 || entry.bitmap != 0 { entries.append(entry) }
      }
    }
    return (tables, entries)
  }

  private mutating func readSnapshots(_ file: DamagedFile) {
    var place = snapshotTable
    for _ in 0..<Int(file.number(at: 60, width: 4)) {
      let (l1, count) = (Int(file.number(at: place)), Int(file.number(at: place + 8, width: 4)))
      let (tables, entries) = walk(file, l1, count)
      snapshots.append(
        Snapshot(place: place, l1Offset: l1, l1Count: count, tables: tables, entries: entries))
      let names = file.number(at: place + 12, width: 2) + file.number(at: place + 14, width: 2)
      place += (40 + Int(file.number(at: place + 36, width: 4)) + Int(names) + 7) / 8 * 8
    }
  }

  private mutating func readExtensions(_ file: DamagedFile) {
    var place = version == 2 ? 72 : Int(file.number(at: 100, width: 4))
    while place < clusterSize {
      let (kind, count) = (file.number(at: place, width: 4), Int(file.number(at: place + 4, width: 4)))
      switch kind {
      case 0: return
      case 0x2385_2875: readBitmaps(file, place + 8)
      case 0x0537_be77:
        encryptionExtension = place + 8
        encryptionHeader = Int(file.number(at: place + 8))
      default: break
      }
      place += 8 + (count + 7) / 8 * 8
    }
  }

  private mutating func readBitmaps(_ file: DamagedFile, _ content: Int) {
    bitmapExtension = content
    bitmapDirectory = Int(file.number(at: content + 16))
    var place = bitmapDirectory
    for _ in 0..<Int(file.number(at: content, width: 4)) {
      let (table, count) = (Int(file.number(at: place)), Int(file.number(at: place + 8, width: 4)))
      let clusters = (0..<count).map { Int(file.number(at: table + 8 * $0)) }.filter { $0 > 1 }
      bitmaps.append(Bitmap(place: place, tableOffset: table, tableCount: count, clusters: clusters))
      let extra = Int(file.number(at: place + 20, width: 4))
      place += (24 + extra + Int(file.number(at: place + 18, width: 2)) + 7) / 8 * 8
    }
  }

  // MARK: What there is

  /// Entries of the disk that say where bytes are.
  var stored: [Entry] { entries.filter { $0.hostOffset != 0 && isStored($0) } }
  var packed: [Entry] { entries.filter(\.isCompressed) }
  private func isStored(_ entry: Entry) -> Bool {
    hasSubclusters ? entry.bitmap & 0xffff_ffff != 0 : entry.raw & 1 == 0
  }
  /// Of snapshots.
  var old: [Entry] { snapshots.flatMap(\.entries).filter { $0.hostOffset != 0 && isStored($0) } }
  /// Stored and shared with a snapshot.
  var shared: [Entry] { stored.filter { !$0.isCopied } }

  /// Host offsets of all clusters of tables, by what they are.
  var metadata: [(name: String, offset: Int)] {
    var result = [("the L1 table", l1Offset), ("the refcount table", refcountTable)]
    result += tables.map { ("an L2 table", $0) } + blocks.map { ("a refcount block", $0) }
    if !snapshots.isEmpty { result.append(("the snapshot table", snapshotTable)) }
    for snapshot in snapshots {
      result.append(("a snapshot's L1 table", snapshot.l1Offset))
      result += snapshot.tables.filter { !tables.contains($0) }.map { ("a snapshot's L2 table", $0) }
    }
    if bitmapExtension != nil { result.append(("the bitmaps' list", bitmapDirectory)) }
    for bitmap in bitmaps {
      result.append(("a bitmap's table", bitmap.tableOffset))
      result += bitmap.clusters.map { ("a bitmap's bits", $0) }
    }
    if encryptionExtension != nil { result.append(("the encryption header", encryptionHeader)) }
    return result
  }

  /// Sets the count of a host cluster; what does not fit is cut off.
  func setCount(_ file: inout DamagedFile, of cluster: Int, to count: UInt64) {
    let perBlock = clusterSize * 8 / refcountBits
    guard cluster / perBlock < blocks.count else { return }
    let bit = cluster % perBlock * refcountBits
    let place = blocks[cluster / perBlock] + bit / 8
    guard refcountBits < 8 else { return file.put(count, at: place, width: refcountBits / 8) }
    let mask = UInt64(1 << refcountBits - 1) << UInt64(bit % 8)
    file.change(place, width: 1) { $0 & ~mask | (count << UInt64(bit % 8)) & mask }
  }

  /// The largest count that an image can say.
  var maximumCount: UInt64 { refcountBits == 64 ? .max : 1 << UInt64(refcountBits) - 1 }
}
