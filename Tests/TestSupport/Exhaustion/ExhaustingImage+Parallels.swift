import FormatEngine
import Foundation

extension ExhaustingImage {
  private static let mebibyte: UInt64 = 1 << 20

  static let parallels: [ExhaustingImage] = [
    ExhaustingImage("parallels: as many clusters as there can be, none in use") { folder in
      _ = try writeParallels(entryCount: UInt32(Int32.max) / 4, sectors: 2048, to: folder.file("image"))
    },
    ExhaustingImage("parallels: as many clusters as there can be, of a sector each") { folder in
      _ = try writeParallels(entryCount: UInt32(Int32.max) / 4, sectors: 1, to: folder.file("image"))
    },
    ExhaustingImage("parallels: 8 million clusters in one place", endless: ["map", "measure"]) { folder in
      let file = try writeParallels(entryCount: 1 << 23, sectors: 2048, to: folder.file("image"))
      try file.write(repeating: [0x30, 0, 0, 0], count: 1 << 23, at: 64)
    },
    ExhaustingImage("parallels: 8 million clusters past the end of the file", endless: ["map"]) { folder in
      let file = try writeParallels(entryCount: 1 << 23, sectors: 2048, to: folder.file("image"))
      try file.write(repeating: [0, 0, 1, 0, 9, 0, 1, 0], count: 1 << 22, at: 64)
    },
    bundle("30,000 snapshots") { shots, _ in
      for index in 0..<30_000 {
        shots += "<Shot><GUID>{\(index)}</GUID><ParentGUID>{\(index + 1)}</ParentGUID></Shot>"
      }
    },
    bundle("entities that grow to gigabytes") { _, head in
      head = "<!DOCTYPE a [<!ENTITY a0 \"0123456789\">"
      for index in 1..<12 {
        head += "<!ENTITY a\(index) \"" + String(repeating: "&a\(index - 1);", count: 10) + "\">"
      }
      head += "]>"
    },
    bundle("100,000 levels") { shots, _ in shots += String(repeating: "<a>", count: 100_000) },
    bundle("190,000 elements") { shots, _ in shots += String(repeating: "<a/>", count: 190_000) },
    bundle("500,000 attributes") { shots, _ in
      shots += "<a" + (0..<400_000).map { " \(String("a") + String($0, radix: 36))=''" }.joined() + "/>"
    },
    bundle("a million character references") { shots, _ in
      shots += "<a>" + String(repeating: "&lt;", count: 900_000) + "</a>"
    },
    bundle("a comment of 4 MiB") { shots, _ in
      shots += "<!--" + String(repeating: "x", count: 4_000_000) + "-->"
    },
  ]

  private static func writeParallels(entryCount: UInt32, sectors: UInt32, to path: String) throws
    -> SparseFile
  {
    let cluster = UInt64(sectors) * 512
    let data = (64 + UInt64(entryCount) * 4 + cluster - 1) / cluster * cluster
    let file = try SparseFile(path, byteCount: data + 8 * mebibyte)
    var header = Array("WithouFreSpacExt".utf8)
    for field in [2, 16, 8, sectors, entryCount] { header.append(littleEndian: field) }
    header.append(littleEndian: UInt64(entryCount) * UInt64(sectors))
    for field in [0, UInt32(data / 512), 0] { header.append(littleEndian: field) }
    header.append(littleEndian: UInt64(0))
    try file.write(header, at: 0)
    return file
  }

  /// A descriptor of a bundle; `change` adds to its snapshots and to what stands before it.
  private static func bundle(
    _ what: String, _ change: @escaping @Sendable (_ shots: inout String, _ head: inout String) -> Void
  ) -> ExhaustingImage {
    ExhaustingImage("parallels bundle: \(what)") { folder in
      try writeParallels(entryCount: 16, sectors: 128, to: folder.file("part")).resize(to: mebibyte)
      var (shots, head) = ("", "")
      change(&shots, &head)
      let text = """
        <?xml version='1.0' encoding='UTF-8'?>\(head)
        <Parallels_disk_image Version="1.0"><Disk_Parameters><Disk_size>2048</Disk_size>
        <Cylinders>2</Cylinders><Heads>16</Heads><Sectors>63</Sectors></Disk_Parameters>
        <StorageData><Storage><Start>0</Start><End>2048</End><Blocksize>128</Blocksize>
        <Image><GUID>\(ParallelsBundleImage.topGUID)</GUID><Type>Compressed</Type><File>part</File></Image>
        </Storage></StorageData>
        <Snapshots><Shot><GUID>\(ParallelsBundleImage.topGUID)</GUID>
        <ParentGUID>\(ParallelsBundleImage.noGUID)</ParentGUID></Shot>\(shots)</Snapshots>
        </Parallels_disk_image>
        """
      try folder.write(Array(text.utf8), to: "image")
    }
  }
}
