import TestSupport

/// Puts together extents of ESX servers by the description of their layout, since no tool here writes them.
enum VMDKServerImages {
  /// A COWD extent with these grains, by their numbers. Tables are there for them only.
  static func cowd(size: Int, grainSectors: Int, _ grains: [Int: [UInt8]]) -> [UInt8] {
    let count = (size / 512 + 4096 * grainSectors - 1) / (4096 * grainSectors)
    var file = [UInt8](repeating: 0, count: (4 + (count * 4 + 511) / 512) * 512)
    func append(_ bytes: [UInt8], _ roundedTo: Int) -> UInt64 {
      let sector = UInt64(file.count / 512)
      file += bytes + [UInt8](repeating: 0, count: roundedTo - bytes.count)
      return sector
    }
    var tables: [Int: UInt64] = [:]
    for (number, bytes) in grains.sorted(by: { $0.key < $1.key }) {
      let table = tables[number / 4096] ?? append([], 4096 * 4)
      tables[number / 4096] = table
      VMDKImages.put(table, into: &file, at: 2048 + number / 4096 * 4, width: 4)
      let sector = append(bytes, grainSectors * 512)
      VMDKImages.put(sector, into: &file, at: Int(table) * 512 + number % 4096 * 4, width: 4)
    }
    file.replaceSubrange(0..<4, with: Array("COWD".utf8))
    let fields = [1, 3, size / 512, grainSectors, 4, count, file.count / 512, 1, 16, 63]
    for (index, value) in fields.enumerated() {
      VMDKImages.put(UInt64(value), into: &file, at: 4 + 4 * index, width: 4)
    }
    return file
  }

  /// A space-efficient extent. `marks`: entries of other grains, by their numbers, as their highest four bits.
  static func spaceEfficient(
    size: Int, _ grains: [Int: [UInt8]], marks: [Int: UInt64] = [:], isDirty: Bool = false
  )
    -> [UInt8]
  {
    let tableCount = (size + (16 << 20) - 1) / (16 << 20)
    let directorySectors = (tableCount * 8 + 511) / 512
    let used = Set((Array(grains.keys) + Array(marks.keys)).map { $0 / 4096 }).sorted()
    let tables = 4 + directorySectors
    let first = tables + used.count * 64
    var file = [UInt8](repeating: 0, count: first * 512)
    for (index, table) in used.enumerated() {
      VMDKImages.put(1 << 60 | UInt64(index), into: &file, at: 4 * 512 + table * 8, width: 8)
    }
    func put(_ entry: UInt64, _ grain: Int) {
      let table = used.firstIndex(of: grain / 4096) ?? 0
      VMDKImages.put(entry, into: &file, at: (tables + table * 64) * 512 + grain % 4096 * 8, width: 8)
    }
    for (index, grain) in grains.sorted(by: { $0.key < $1.key }).enumerated() {
      put(3 << 60 | UInt64(index & 0xfff) << 48 | UInt64(index >> 12), grain.key)
      file += grain.value + [UInt8](repeating: 0, count: 4096 - grain.value.count)
    }
    for (grain, mark) in marks { put(mark << 60, grain) }
    var fields = [0xcafe_babe, 0x2_0000_0001, size / 512, 8, 64, 0, 0, 0, 0, 0, 1, 1, 2, 1, 3, 1, 4]
    fields += [directorySectors, tables, used.count * 64, 0, 0, 0, 0, first, grains.count * 8]
    for (index, value) in fields.enumerated() {
      VMDKImages.put(UInt64(value), into: &file, at: 8 * index, width: 8)
    }
    for (index, value) in [0xcafe_cafe, used.count, 1, isDirty ? 1 : 0].enumerated() {
      VMDKImages.put(UInt64(value), into: &file, at: 512 + 8 * index, width: 8)
    }
    return file
  }

  /// A descriptor with one extent, as servers write it.
  static func descriptor(
    _ type: String, _ extent: String, size: Int, _ name: String, parent: String? = nil
  ) -> [UInt8] {
    var lines = [
      "# Disk DescriptorFile", "version=1", "CID=2234567\(parent == nil ? 8 : 9)",
      "parentCID=\(parent == nil ? "ffffffff" : "22345678")", "createType=\"\(type)\"",
    ]
    if let parent { lines.append("parentFileNameHint=\"\(parent)\"") }
    lines += ["", "# Extent description", "RW \(size / 512) \(extent) \"\(name)\"", ""]
    lines += ["# The Disk Data Base", "#DDB", "", "ddb.adapterType = \"lsilogic\"", ""]
    return Array(lines.joined(separator: "\n").utf8)
  }

  /// A flat disk `base.vmdk` of random bytes in a folder; gives back the bytes.
  static func makeBase(size: Int, in folder: TemporaryFolder) throws -> [UInt8] {
    var random = SeededRandom(seed: 31)
    let bytes = random.bytes(size)
    try folder.write(bytes, to: "base-flat.vmdk")
    try folder.write(descriptor("vmfs", "VMFS", size: size, "base-flat.vmdk"), to: "base.vmdk")
    return bytes
  }
}
