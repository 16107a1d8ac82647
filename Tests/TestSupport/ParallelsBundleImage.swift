/// A bundle: a disk in several storages, with snapshots, and what each snapshot reads like.
public struct ParallelsBundleImage {
  public var storageSizes: [Int]
  public var clusterSize: Int
  /// From the oldest to the one that is written to.
  public var guids: [String]
  /// Storages whose oldest image is plain.
  public var plainStorages: Set<Int>

  public init(
    storageSizes: [Int] = [1 << 20, 2 << 20], clusterSize: Int = 65536, guids: [String] = Self.threeGUIDs,
    plainStorages: Set<Int> = [1]
  ) {
    self.storageSizes = storageSizes
    self.clusterSize = clusterSize
    self.guids = guids
    self.plainStorages = plainStorages
  }

  public static let threeGUIDs = [
    "{00000001-1111-2222-3333-444455556666}", "{00000002-1111-2222-3333-444455556666}", topGUID,
  ]
  public static let topGUID = "{5fbaabe3-6958-40ff-92a7-860e329aab41}"
  public static let noGUID = "{00000000-0000-0000-0000-000000000000}"

  public func file(_ storage: Int, _ level: Int) -> String { "harddisk.hdd.\(storage).\(guids[level]).hds" }

  /// Makes the files in a folder and gives what each snapshot reads like. The judge writes them.
  public func make(in folder: String, _ random: inout SeededRandom) throws -> [ModelDisk] {
    var model = ModelDisk(byteCount: storageSizes.reduce(0, +))
    var models: [ModelDisk] = []
    for level in guids.indices {
      var start = 0
      for (storage, size) in storageSizes.enumerated() {
        let isPlain = level == 0 && plainStorages.contains(storage)
        let format = isPlain ? "raw" : "parallels"
        let options = isPlain ? [] : ["-o", "cluster_size=\(clusterSize)"]
        let name = file(storage, level)
        try ReferenceTool.qemuImg.run(
          ["create", "-q", "-f", format] + options + [name, "\(size)"], folder: folder
        ).expecting(0)
        var commands: [String] = []
        for _ in 0..<5 {
          let offset = random.below(size / clusterSize) * clusterSize
          let pattern = 1 + random.below(255)
          commands.append("write -q -P \(pattern) \(offset) \(clusterSize)")
          model.write([UInt8](repeating: UInt8(pattern), count: clusterSize), at: start + offset)
        }
        try ReferenceTool.io(commands, on: name, format: format, folder: folder)
        start += size
      }
      models.append(model)
    }
    try Files.write(Array(descriptor().utf8), to: "\(folder)/DiskDescriptor.xml")
    return models
  }

  /// The descriptor; `change` spoils it.
  public func descriptor(_ change: (inout String) -> Void = { _ in }) -> String {
    var storages = ""
    var start = 0
    for (number, size) in storageSizes.enumerated() {
      storages += "<Storage><Start>\(start / 512)</Start><End>\((start + size) / 512)</End>"
      storages += "<Blocksize>\(clusterSize / 512)</Blocksize>"
      for level in guids.indices {
        let type = level == 0 && plainStorages.contains(number) ? "Plain" : "Compressed"
        storages += "<Image><GUID>\(guids[level])</GUID><Type>\(type)</Type>"
        storages += "<File>\(file(number, level))</File></Image>\n"
      }
      storages += "</Storage>"
      start += size
    }
    let shots = zip(guids, [Self.noGUID] + guids).map { guid, parent in
      "<Shot><GUID>\(guid)</GUID><ParentGUID>\(parent)</ParentGUID></Shot>"
    }.joined()
    var text = """
      <?xml version='1.0' encoding='UTF-8'?>
      <Parallels_disk_image Version="1.0">
      <Disk_Parameters><Disk_size>\(start / 512)</Disk_size><Cylinders>12</Cylinders><Heads>16</Heads>
      <Sectors>32</Sectors><LogicSectorSize>512</LogicSectorSize><Padding>0</Padding>
      <Encryption><Engine>\(Self.noGUID)</Engine><Data></Data></Encryption></Disk_Parameters>
      <StorageData>\(storages)</StorageData>
      <Snapshots>\(shots)</Snapshots></Parallels_disk_image>
      """
    change(&text)
    return text
  }
}
