import Foundation
import TestSupport

/// An image that names further files: how it is made, by shell lines in a folder with the folders `in` and `out`.
/// The image is `in/image`; all that it names lies in `out`.
struct NamingImage: Sendable, CustomStringConvertible {
  let description: String
  let make: String
  /// The files that it names, as data or below it.
  var (parts, below): ([String], [String])
  /// What the message says that the file is for.
  var role = "backing file"
  /// Whether a command that writes to it gets as far as opening all of it.
  var isWritable = true

  private static let chain = ["qcow2", "qed", "qcow"].map { format in
    NamingImage(
      description: "\(format) backing file",
      make: """
        qemu-img create -q -f raw out/base 1M
        qemu-img create -q -f \(format) -b ../out/base -F raw in/image
        """, parts: [], below: ["out/base"])
  }

  private static let parents = [("vmdk", "vmdk"), ("vpc", "vhd"), ("vhdx", "vhdx")].map { format, suffix in
    NamingImage(
      description: "\(format) parent",
      make: """
        qemu-img create -q -f \(format) out/base.\(suffix) 4M
        qemu-img create -q -f \(format) -b ../out/base.\(suffix) -F \(format) in/image
        """, parts: [], below: ["out/base.\(suffix)"], role: "parent")
  }

  private static let flat = ["monolithicFlat", "twoGbMaxExtentFlat", "twoGbMaxExtentSparse"].map { kind in
    let stem = kind == "monolithicFlat" ? "flat" : kind == "twoGbMaxExtentFlat" ? "f001" : "s001"
    return NamingImage(
      description: "vmdk \(kind)",
      make: """
        qemu-img create -q -f vmdk -o subformat=\(kind) in/image.vmdk 1M
        mv in/image-\(stem).vmdk out/part
        sed 's|"image-\(stem).vmdk"|"../out/part"|' in/image.vmdk > in/image
        rm in/image.vmdk
        """, parts: ["out/part"], below: [], role: "extent")
  }

  static let all =
    chain + parents + flat + [
      NamingImage(
        description: "qcow2 backing chain",
        make: """
          qemu-img create -q -f raw out/base 1M
          qemu-img create -q -f qcow2 -b ../out/base -F raw in/middle
          qemu-img create -q -f qcow2 -b middle -F qcow2 in/image
          """, parts: [], below: ["out/base"]),
      NamingImage(
        description: "qcow2 recorded tree",
        make: """
          qemu-img create -q -f qcow2 out/base 1M
          qemu-img create -q -f qcow2 -F qcow2 -u in/image 1M \\
            -b "json:{\\"driver\\":\\"qcow2\\",\\"file\\":{\\"driver\\":\\"file\\",\\"filename\\":\\"$PWD/out/base\\"}}"
          """, parts: [], below: ["out/base"]),
      NamingImage(
        description: "qcow2 data file",
        make: "qemu-img create -q -f qcow2 -o data_file=../out/data in/image 1M",
        parts: ["out/data"], below: [], role: "data file"),
      NamingImage(
        description: "qcow2 data file over a backing file",
        make: """
          qemu-img create -q -f raw in/base 1M
          qemu-img create -q -f qcow2 -o data_file=../out/data -b base -F raw in/image
          """, parts: ["out/data"], below: [], role: "data file"),
      NamingImage(
        description: "qcow2 backing file with a data file",
        make: """
          (cd out && qemu-img create -q -f qcow2 -o data_file=data base 1M)
          qemu-img create -q -f qcow2 -b ../out/base -F qcow2 in/image
          """, parts: ["out/data"], below: ["out/base"]),
      NamingImage(
        description: "qcow2 link",
        make: """
          qemu-img create -q -f raw out/base 1M
          ln -s ../out/base in/link
          qemu-img create -q -f qcow2 -b link -F raw in/image
          """, parts: [], below: ["out/base"]),
      NamingImage(
        description: "vdi parent",
        make: """
          qemu-img create -q -f vdi in/base.vdi 4M
          qemu-img create -q -f vdi -b base.vdi -F vdi in/image
          mv in/base.vdi out/base.vdi
          ln -s ../out/base.vdi in/base.vdi
          """, parts: [], below: ["out/base.vdi"]),
      NamingImage(
        description: "parallels bundle",
        make: """
          qemu-img create -q -f parallels out/part 1M
          cat > in/image <<'END'
          <?xml version='1.0' encoding='UTF-8'?>
          <Parallels_disk_image Version="1.0"><Disk_Parameters><Disk_size>2048</Disk_size>
          <Cylinders>2</Cylinders><Heads>16</Heads><Sectors>63</Sectors></Disk_Parameters>
          <StorageData><Storage><Start>0</Start><End>2048</End><Blocksize>2048</Blocksize>
          <Image><GUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</GUID><Type>Compressed</Type>
          <File>../out/part</File></Image></Storage></StorageData>
          <Snapshots><Shot><GUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</GUID>
          <ParentGUID>{00000000-0000-0000-0000-000000000000}</ParentGUID></Shot></Snapshots>
          </Parallels_disk_image>
          END
          """, parts: ["out/part"], below: [], role: "extent"),
    ]

  /// Makes the image with our qemu-img and runs `body` in the folder.
  func with(_ body: (TemporaryFolder) throws -> Void) throws {
    try TemporaryFolder.with { folder in
      for name in ["in", "out"] { _ = try folder.makeFolder(name) }
      let programs = URL(fileURLWithPath: try BuiltProduct.qemuImg.path).deletingLastPathComponent().path
      let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"
      try TestProcess.run(
        ["/bin/sh", "-ec", make], environment: ["PATH": "\(programs):\(path)"], folder: folder.path
      ).expecting()
      try body(folder)
    }
  }
}
