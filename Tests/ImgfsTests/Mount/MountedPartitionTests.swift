import Foundation
import TestSupport
import Testing

/// Partitions of a mounted image, as the programs of a system use them.
@Suite(.enabled(if: MountedImage.canLoopMount), .serialized) struct MountedPartitionTests {
  private func output(_ words: String...) throws -> String {
    try TestProcess.run(words, environment: ["LC_ALL": "C.UTF-8"]).expecting().stdoutText
  }

  @Test(arguments: ["raw", "qcow2", "vmdk"]) func partitionsMountWithoutOffsets(_ format: String) throws {
    try TemporaryFolder.with { folder in
      let disk = try PartitionFolderTests.makeDisk("disk.img", in: folder)
      let image = folder.file("image.\(format)")
      try ReferenceTool.qemuImg("convert", "-f", "raw", "-O", format, disk, image)
      try MountedImage.with(image, options: ["-F", format], in: folder) { mount in
        let guest = try folder.makeFolder("guest")
        for source in ["1.raw", "by-label/the label"] {
          try TestProcess.run(["/bin/mount", "-o", "loop,ro", mount.file("partitions/\(source)"), guest])
            .expecting()
          let mounted = try output("/usr/bin/findmnt", "-n", "-o", "LABEL", guest)
          try TestProcess.run(["/bin/umount", guest]).expecting()
          #expect(mounted == "the label\n")
        }
        try TestProcess.run(["/usr/sbin/fsck.vfat", "-n", mount.file("partitions/by-label/FATLABEL")])
          .expecting()
        let link = mount.file("partitions/by-uuid/11111111-2222-3333-4444-555555555555")
        #expect(try output("/usr/sbin/blkid", "-p", "-o", "value", "-s", "LABEL", link) == "the label\n")
        #expect(try output("/usr/bin/readlink", link) == "../1.raw\n")
        #expect(
          try output("/usr/sbin/sfdisk", "--json", mount.file("disk.raw")).contains("\"start\": 60000"))
        try TestProcess.run(["/usr/sbin/e2fsck", "-fn", mount.file("partitions/1.raw")]).expecting()
      }
    }
  }
}
