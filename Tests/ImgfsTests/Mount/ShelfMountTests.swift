import Foundation
import TestSupport
import Testing

/// Several images, and folders of them, below one mount point.
@Suite(.enabled(if: MountedImage.isPossible), .serialized) struct ShelfMountTests {
  private func image(_ name: String, _ format: String, _ pattern: Int, in folder: TemporaryFolder) throws
    -> String
  {
    try ReferenceTool.create(folder.file(name), format: format, size: 4 << 20)
    try ReferenceTool.io(["write -P \(pattern) 0 1M"], on: folder.file(name), format: format)
    return folder.file(name)
  }

  private func names(_ path: String) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: path).sorted()
  }

  private func expect(_ pattern: Int, in path: String) throws {
    try ReferenceTool.io(["read -P \(pattern) 0 1M"], on: path, format: "raw", isReadOnly: true)
  }

  /// Descriptors that the process has of files in a folder.
  private func openFiles(of process: pid_t, below folder: String) throws -> Int {
    let links = try FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/fd")
    return links.filter {
      let target = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(process)/fd/\($0)")
      return target?.hasPrefix(folder) == true
    }.count
  }

  @Test func showsImagesThatAreNamed() throws {
    try TemporaryFolder.with { folder in
      let images = [
        try image("a.qcow2", "qcow2", 1, in: folder), try image("b.vmdk", "vmdk", 2, in: folder),
      ]
      try MountedImage.with(images, in: folder) { mount in
        #expect(try names(mount.path) == ["a.qcow2", "b.vmdk"])
        try expect(1, in: mount.file("a.qcow2/disk.raw"))
        try expect(2, in: mount.file("b.vmdk/disk.raw"))
        #expect(try names(mount.file("b.vmdk")).contains("info.json"))
        // Read-only, and said so.
        #expect(FileHandle(forWritingAtPath: mount.file("a.qcow2/disk.raw")) == nil)
      }
      let missing = folder.file("missing")
      let result = try BuiltProduct.imgfs.run([images[0], missing, try folder.makeFolder("mnt")])
      #expect(result.status == 1)
      #expect(result.stderrText == "imgfs: Could not open '\(missing)': No such file or directory\n")
    }
  }

  @Test func showsABundleInAFolder() throws {
    try TemporaryFolder.with { folder in
      let images = try folder.makeInner("images")
      _ = try image("a.qcow2", "qcow2", 1, in: images)
      var random = SeededRandom(seed: 69)
      let bundle = try images.makeFolder("disk.hdd")
      let model = try #require(try ParallelsBundleImage().make(in: bundle, &random).last)
      try MountedImage.with(images.path, in: folder) { mount in
        #expect(try names(mount.path) == ["a.qcow2", "disk.hdd"])
        let bytes = try Files.read(mount.file("disk.hdd/disk.raw"))
        #expect(ModelDisk.firstDifference(bytes, model.bytes) == nil)
      }
    }
  }

  @Test func showsAFolderOfImagesAsItChanges() throws {
    try TemporaryFolder.with { folder in
      let images = try folder.makeInner("images")
      _ = try image("a.qcow2", "qcow2", 1, in: images)
      try MountedImage.with(images.path, options: ["-o", "idle=0"], in: folder) { mount in
        #expect(try names(mount.path) == ["a.qcow2"])
        try expect(1, in: mount.file("a.qcow2/disk.raw"))
        // Nobody uses it: nobody keeps others from writing to it.
        let isClosed = try MountedImage.waits { try openFiles(of: mount.process, below: images.path) == 0 }
        #expect(isClosed)
        try ReferenceTool.io(["write -P 4 0 1M"], on: images.file("a.qcow2"), format: "qcow2")
        let isNew = MountedImage.waits { (try? expect(4, in: mount.file("a.qcow2/disk.raw"))) != nil }
        #expect(isNew)
        _ = try image("b.vdi", "vdi", 2, in: images)
        let hasBoth = try MountedImage.waits { try names(mount.path) == ["a.qcow2", "b.vdi"] }
        #expect(hasBoth)
        try expect(2, in: mount.file("b.vdi/disk.raw"))
        try FileManager.default.removeItem(atPath: images.file("a.qcow2"))
        let hasOne = try MountedImage.waits { try names(mount.path) == ["b.vdi"] }
        #expect(hasOne)
      }
    }
  }

  /// While somebody has the image open, as cp(1) does it.
  @Test func showsWhatWasWrittenIntoAnOpenFile() throws {
    try TemporaryFolder.with { folder in
      let images = try folder.makeInner("images")
      let path = try image("x.raw", "raw", 1, in: images)
      try MountedImage.with(images.path, options: ["-o", "idle=0"], in: folder) { mount in
        let handle = try #require(FileHandle(forReadingAtPath: mount.file("x.raw/disk.raw")))
        #expect(try handle.read(upToCount: 4) == Data([1, 1, 1, 1]))
        let file = try FileHandle(forUpdating: URL(fileURLWithPath: path))
        try file.write(contentsOf: Data(repeating: 2, count: 4 << 20) + Data(repeating: 3, count: 1 << 20))
        try file.close()
        try handle.close()
        let isClosed = try MountedImage.waits { try openFiles(of: mount.process, below: images.path) == 0 }
        #expect(isClosed)
        let bytes = try Files.read(mount.file("x.raw/disk.raw"))
        #expect(bytes.count == 5 << 20 && bytes.prefix(4 << 20).allSatisfy { $0 == 2 })
        #expect(bytes.suffix(1 << 20).allSatisfy { $0 == 3 })
      }
    }
  }

  /// The kernel asks for the path once more where a file is another one: who opens it notices nothing.
  @Test func showsWhatLiesBelowAsItIsNow() throws {
    try TemporaryFolder.with { folder in
      let images = try folder.makeInner("images")
      let base = try image("base.qcow2", "qcow2", 1, in: images)
      try ReferenceTool.qemuImg(
        "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", images.file("top.qcow2"))
      try MountedImage.with(images.path, options: ["-o", "rw,idle=0"], in: folder) { mount in
        let disk = mount.file("top.qcow2/disk.raw")
        for round in 1...3 {
          try expect(round, in: disk)
          let isClosed = try MountedImage.waits { try openFiles(of: mount.process, below: images.path) == 0 }
          #expect(isClosed)
          // From outside, and through the same mount.
          if round == 1 {
            try ReferenceTool.io(["write -P 2 0 1M"], on: base, format: "qcow2")
          } else {
            try ReferenceTool.io(
              ["write -P 3 0 1M"], on: mount.file("base.qcow2/disk.raw"), format: "raw")
            let isClosed = try MountedImage.waits {
              try openFiles(of: mount.process, below: images.path) == 0
            }
            #expect(isClosed)
          }
        }
      }
    }
  }

  @Test func holdsHundredsOfImagesWithFewFiles() throws {
    try TemporaryFolder.with { folder in
      let images = try folder.makeInner("images")
      let bytes = try Files.read(try image("0.qcow2", "qcow2", 1, in: images))
      for number in 1..<400 { try Files.write(bytes, to: images.file("\(number).qcow2")) }
      try MountedImage.with(images.path, options: ["-o", "idle=1"], in: folder) { mount in
        #expect(try names(mount.path).count == 400)
        #expect(try openFiles(of: mount.process, below: images.path) == 0)
        for number in 0..<400 {
          let handle = try #require(FileHandle(forReadingAtPath: mount.file("\(number).qcow2/disk.raw")))
          #expect(try handle.read(upToCount: 4) == Data([1, 1, 1, 1]))
          try handle.close()
        }
        #expect(try openFiles(of: mount.process, below: images.path) < 100)
        let areClosed = try MountedImage.waits { try openFiles(of: mount.process, below: images.path) == 0 }
        #expect(areClosed)
      }
    }
  }

  @Test func writesWhereItIsAsked() throws {
    try TemporaryFolder.with { folder in
      let images = try folder.makeInner("images")
      for (name, format) in [("a.qcow2", "qcow2"), ("b.vdi", "vdi")] {
        _ = try image(name, format, 1, in: images)
      }
      try MountedImage.with(images.path, options: ["-o", "rw,idle=0"], in: folder) { mount in
        for round in 2...4 {
          for name in ["a.qcow2", "b.vdi"] {
            try ReferenceTool.io(
              ["write -P \(round) 0 1M"], on: mount.file("\(name)/disk.raw"), format: "raw")
          }
          let areClosed = try MountedImage.waits { try openFiles(of: mount.process, below: images.path) == 0 }
          #expect(areClosed)
          try ReferenceTool.io(["read -P \(round) 0 1M"], on: images.file("a.qcow2"), format: "qcow2")
          try ReferenceTool.io(["read -P \(round) 0 1M"], on: images.file("b.vdi"), format: "vdi")
        }
      }
      #expect(try ReferenceTool.check(images.file("a.qcow2"), format: "qcow2").isClean)
    }
  }

  /// Looks at the folder come and go while somebody writes, and the file gets another name.
  @Test func keepsWhatIsWrittenWhileItIsOpen() throws {
    try TemporaryFolder.with { folder in
      let images = try folder.makeInner("images")
      _ = try image("a.qcow2", "qcow2", 1, in: images)
      try MountedImage.with(images.path, options: ["-o", "rw,idle=0"], in: folder) { mount in
        let disk = mount.file("a.qcow2/disk.raw")
        let number = try FileManager.default.attributesOfItem(atPath: disk)[.systemFileNumber] as? Int
        let handle = try #require(FileHandle(forWritingAtPath: disk))
        for round in 2...4 {
          try handle.seek(toOffset: UInt64(round) << 16)
          try handle.write(contentsOf: Data(repeating: UInt8(round), count: 65536))
          try handle.synchronize()
          // The next look at the folder.
          usleep(1_100_000)
          let path = mount.file(round < 4 ? "a.qcow2/disk.raw" : "b.qcow2/disk.raw")
          if round < 4 {
            let now = try FileManager.default.attributesOfItem(atPath: path)[.systemFileNumber] as? Int
            #expect(now == number)
          }
          try ReferenceTool.io(
            ["read -P \(round) \(round << 16) 64k"], on: path, format: "raw", isReadOnly: true)
          if round == 3 {
            try FileManager.default.moveItem(
              atPath: images.file("a.qcow2"), toPath: images.file("b.qcow2"))
            let isRenamed = try MountedImage.waits { try names(mount.path) == ["b.qcow2"] }
            #expect(isRenamed)
          }
        }
        try handle.close()
        let isClosed = try MountedImage.waits { try openFiles(of: mount.process, below: images.path) == 0 }
        #expect(isClosed)
      }
      for round in 2...4 {
        try ReferenceTool.io(
          ["read -P \(round) \(round << 16) 64k"], on: images.file("b.qcow2"), format: "qcow2")
      }
      #expect(try ReferenceTool.check(images.file("b.qcow2"), format: "qcow2").isClean)
    }
  }

  /// A file of a mount whose server is stopped stands for a disk that does not answer.
  @Test func aFileThatDoesNotAnswerKeepsNobodyWaiting() throws {
    try TemporaryFolder.with { folder in
      let images = try folder.makeInner("images")
      _ = try image("a.qcow2", "qcow2", 1, in: images)
      let below = try image("below.raw", "raw", 2, in: folder)
      try MountedImage.with(below, in: folder) { stopped in
        try MountedImage.with(images.path, in: folder) { mount in
          #expect(try names(mount.path) == ["a.qcow2"])
          kill(stopped.process, SIGSTOP)
          defer { kill(stopped.process, SIGCONT) }
          try FileManager.default.createSymbolicLink(
            atPath: images.file("x.raw"), withDestinationPath: stopped.file("disk.raw"))
          usleep(1_100_000)
          let path = mount.path
          let looking = Thread { _ = try? FileManager.default.contentsOfDirectory(atPath: path) }
          looking.start()
          try Deadline.within(seconds: 30, "a look beside one that gets no answer") {
            #expect(try names(mount.path) == ["a.qcow2"])
            try expect(1, in: mount.file("a.qcow2/disk.raw"))
            #expect(try FileManager.default.attributesOfFileSystem(forPath: mount.path)[.systemSize] != nil)
          }
          kill(stopped.process, SIGCONT)
          let areBoth = try MountedImage.waits { try names(mount.path) == ["a.qcow2", "x.raw"] }
          #expect(areBoth)
          try expect(2, in: mount.file("x.raw/disk.raw"))
          #expect(MountedImage.waits { looking.isFinished })
        }
      }
    }
  }

  /// The mount point may lie in the folder that it shows.
  @Test(arguments: [[], ["-s"]]) func doesNotLookIntoItself(_ options: [String]) throws {
    try TemporaryFolder.with { folder in
      _ = try image("a.qcow2", "qcow2", 1, in: folder)
      let mountPoint = try folder.makeFolder("mnt")
      try FileManager.default.createSymbolicLink(
        atPath: folder.file("link.raw"), withDestinationPath: "mnt/a.qcow2/disk.raw")
      try Deadline.within(seconds: 30, "a look into the mount itself") {
        try BuiltProduct.imgfs.run(options + [folder.path, mountPoint]).expecting(0)
        defer { _ = try? BuiltProduct.imgfs.run(["--unmount", mountPoint]) }
        #expect(try names(mountPoint) == ["a.qcow2"])
        try expect(1, in: mountPoint + "/a.qcow2/disk.raw")
      }
    }
  }

  /// With an overlay an image stays open for what that holds; one whose file is gone nobody can look at again.
  @Test func letsGoOfWhatWasDeletedUnderAnOverlay() throws {
    try TemporaryFolder.with { folder in
      let images = try folder.makeInner("images")
      for name in ["a.qcow2", "b.qcow2"] { _ = try image(name, "qcow2", 1, in: images) }
      try MountedImage.with(images.path, options: ["--overlay", "tmp", "-o", "idle=0"], in: folder) { mount in
        for name in ["a.qcow2", "b.qcow2"] {
          try ReferenceTool.io(["write -P 5 0 1M"], on: mount.file("\(name)/disk.raw"), format: "raw")
        }
        try FileManager.default.removeItem(atPath: images.file("a.qcow2"))
        // Another name is another look; what was written stays.
        try FileManager.default.moveItem(atPath: images.file("b.qcow2"), toPath: images.file("c.qcow2"))
        let isClosed = try MountedImage.waits {
          let left = try names(mount.path)
          let count = try openFiles(of: mount.process, below: images.path)
          return left == ["c.qcow2"] && count == 1
        }
        #expect(isClosed)
        try expect(5, in: mount.file("c.qcow2/disk.raw"))
      }
    }
  }

  /// Root mounts what others may fill: their links show what lies in the folder, or where it is allowed. Whose the links and
  /// the folder are, and whether what lies outside is seen.
  @Test(
    .enabled(if: geteuid() == 0),
    arguments: [(65534, 65534, false), (65534, 0, false), (0, 65534, false), (0, 0, true)])
  func followsNoLinksOfOthers(_ owner: Int, _ owners: Int, _ isSeen: Bool) throws {
    try TemporaryFolder.with { folder in
      let images = try folder.makeInner("images")
      for name in ["a.qcow2", "b.qcow2"] { _ = try image(name, "qcow2", 1, in: images) }
      let other = try folder.makeInner("other")
      _ = try image("secret.raw", "raw", 3, in: other)
      let steps = """
        cd images
        ln -s ../other/secret.raw x.raw; ln -s a.qcow2 y.qcow2; ln -s ../other hop; ln -s hop/secret.raw z.raw
        mkdir w.hdd; ln -s ../../other/secret.raw w.hdd/DiskDescriptor.xml
        chown -h \(owner) . a.qcow2; chown -h \(owners) *.raw y.qcow2 hop w.hdd/*
        """
      try Shell.run(steps, in: folder)
      let inside = ["a.qcow2", "b.qcow2", "y.qcow2"]
      let outside = ["x.raw", "z.raw"]
      try MountedImage.with(images.path, in: folder) { mount in
        let all = try names(mount.path)
        if owner != 0 { #expect(!all.contains("w.hdd")) }
        let seen = all.filter { $0 != "w.hdd" }
        #expect(seen == (isSeen ? (inside + outside).sorted() : inside))
        for name in ["a.qcow2", "y.qcow2"] { try expect(1, in: mount.file("\(name)/disk.raw")) }
        // One that becomes a link after it was looked at.
        if owner != 0 {
          try Shell.run("ln -sf ../other/secret.raw images/b.qcow2", in: folder)
          #expect((try? Files.read(mount.file("b.qcow2/disk.raw")))?.first != 3)
        }
      }
      try MountedImage.with(images.path, options: ["-o", "allow_path=\(other.path)"], in: folder) { mount in
        #expect(try names(mount.path).filter { outside.contains($0) } == outside)
        try expect(3, in: mount.file("x.raw/disk.raw"))
      }
    }
  }
}
