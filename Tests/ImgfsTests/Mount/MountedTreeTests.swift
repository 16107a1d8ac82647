import Foundation
import TestSupport
import Testing

@Suite(.enabled(if: MountedImage.isPossible), .serialized)
struct MountedTreeTests {
  private func names(in folder: String) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: folder).sorted()
  }

  @Test func readsDiskSnapshotsAndLayersAsTheJudgeDoes() throws {
    try TemporaryFolder.with { folder in
      let (top, base) = try GuestImages.chain(in: folder)
      try MountedImage.with(top, in: folder) { mount in
        #expect(try names(in: mount.file("layers")) == ["0-top.qcow2", "1-base.qcow2"])
        #expect(try names(in: mount.file("snapshots")) == ["after", "before"])
        try GuestImages.expectSame(mount.file("disk.raw"), GuestImages.raw(top, in: folder))
        try GuestImages.expectSame(mount.file("layers/0-top.qcow2/disk.raw"), mount.file("disk.raw"))
        for name in ["before", "after"] {
          let judged = try GuestImages.raw(top, snapshot: name, in: folder)
          try GuestImages.expectSame(mount.file("snapshots/\(name)/disk.raw"), judged)
          try GuestImages.expectSame(mount.file("layers/0-top.qcow2/snapshots/\(name)/disk.raw"), judged)
        }
        let lower = mount.file("layers/1-base.qcow2")
        try GuestImages.expectSame(lower + "/disk.raw", GuestImages.raw(base, in: folder))
        let judged = try GuestImages.raw(base, snapshot: "first", in: folder)
        try GuestImages.expectSame(lower + "/snapshots/first/disk.raw", judged)
      }
    }
  }

  @Test func describesItselfAsTheJudgeDoes() throws {
    try TemporaryFolder.with { folder in
      let (top, base) = try GuestImages.chain(in: folder)
      func parsed(_ bytes: [UInt8]) throws -> NSObject {
        guard let value = try JSONSerialization.jsonObject(with: Foundation.Data(bytes)) as? NSObject else {
          throw TestFailure("No JSON: \(String(decoding: bytes, as: UTF8.self))")
        }
        return value
      }
      try MountedImage.with(top, in: folder) { mount in
        // Newer versions say more; what the judge says must be there and the same.
        for (file, image) in [("info.json", top), ("layers/1-base.qcow2/info.json", base)] {
          let judged =
            try parsed(ReferenceTool.qemuImg("info", "--output=json", image).stdout) as? [String: NSObject]
          let found = try parsed(Files.read(mount.file(file))) as? [String: NSObject]
          #expect(judged?.isEmpty == false)
          for (key, value) in judged ?? [:] { #expect(found?[key] == value, "\(file): \(key)") }
        }
        let judged =
          try parsed(ReferenceTool.qemuImg("map", "--output=json", top).stdout) as? [[String: NSObject]]
        let found = try parsed(Files.read(mount.file("map.json"))) as? [[String: NSObject]]
        #expect(judged?.count == found?.count)
        for (ours, theirs) in zip(found ?? [], judged ?? []) {
          for (key, value) in theirs { #expect(ours[key] == value) }
        }
        let snapshot = try parsed(Files.read(mount.file("snapshots/before/info.json"))) as? [String: NSObject]
        let list = snapshot?["snapshots"] as? [[String: NSObject]]
        #expect(list?.count == 1 && list?.first?["name"] == "before" as NSString)
        var status = stat()
        #expect(unsafe stat(mount.file("map.json"), &status) == 0)
        let size = try Files.read(mount.file("map.json")).count
        #expect(Int(status.st_size) == size && size > 2)
      }
    }
  }

  @Test(arguments: [
    "cluster_size=512", "cluster_size=4k", "cluster_size=2M", "compat=0.10", "extended_l2=on",
    "compression_type=zlib -c", "compression_type=zstd -c", "compression_type=zstd,cluster_size=2M -c",
    "data_file=data.bin", "data_file=data.bin,data_file_raw=on", "preallocation=full",
  ])
  func readsEveryKindOfQcow2(_ kind: String) throws {
    try TemporaryFolder.with { folder in
      let raw = try GuestImages.scattered("guest.raw", byteCount: 20_000_256, seed: 7, in: folder)
      let options = kind.split(separator: " ").map(String.init)
      let image = folder.file("guest.qcow2")
      // The data file is named relative to the image's folder, and made relative to the process's.
      try ReferenceTool.qemuImg.run(
        ["convert", "-O", "qcow2", "-o", options[0]] + options.dropFirst() + [raw, image], folder: folder.path
      ).expecting(0)
      try MountedImage.with(image, in: folder) { mount in
        try GuestImages.expectSame(mount.file("disk.raw"), raw)
        // Again, by requests that start and end anywhere.
        let copy = folder.file("copy.raw")
        let disk = mount.file("disk.raw")
        try TestProcess.run(["/bin/dd", "if=\(disk)", "of=\(copy)", "bs=3333", "status=none"]).expecting(0)
        try GuestImages.expectSame(copy, raw)
      }
    }
  }

  @Test func readsARawImageWhoseSizeIsNoWholeSector() throws {
    try TemporaryFolder.with { folder in
      let content = (0..<300_001).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
      let image = try folder.write(content, to: "odd.img")
      try MountedImage.with(image, options: ["-F", "raw"], in: folder) { mount in
        let found = try Files.read(mount.file("disk.raw"))
        #expect(found == content + [UInt8](repeating: 0, count: 31))
        let snapshots = try names(in: mount.file("snapshots"))
        #expect(snapshots == [])
      }
    }
  }

  @Test func readsTheTopAloneWhereBackingIsNotFollowed() throws {
    try TemporaryFolder.with { folder in
      let base = try folder.write([UInt8](repeating: 9, count: 1 << 20), to: "base.raw")
      let top = folder.file("top.qcow2")
      try ReferenceTool.qemuImg("create", "-f", "qcow2", "-b", base, "-F", "raw", top)
      try ReferenceTool.io(["write -P 5 0 64k"], on: top, format: "qcow2")
      try FileManager.default.removeItem(atPath: base)
      try MountedImage.with(top, options: ["--backing", "none"], in: folder) { mount in
        let expected = [UInt8](repeating: 5, count: 65_536) + [UInt8](repeating: 0, count: (1 << 20) - 65_536)
        let found = try Files.read(mount.file("disk.raw"))
        #expect(found == expected)
        let layers = try names(in: mount.file("layers"))
        #expect(layers == ["0-top.qcow2"])
      }
    }
  }

  @Test func readsPastThePageCache() throws {
    try TemporaryFolder.with { folder in
      let (top, _) = try GuestImages.chain(in: folder)
      let judged = try GuestImages.raw(top, in: folder)
      try MountedImage.with(top, in: folder) { mount in
        for blockSize in ["4k", "64k", "1M"] {
          let copy = folder.file("copy.raw")
          let disk = mount.file("disk.raw")
          try TestProcess.run(
            ["/bin/dd", "if=\(disk)", "of=\(copy)", "bs=\(blockSize)", "iflag=direct", "status=none"]
          ).expecting(0)
          try GuestImages.expectSame(copy, judged)
        }
      }
    }
  }

  @Test func answersManyReadersAtOnce() throws {
    try TemporaryFolder.with { folder in
      let (top, _) = try GuestImages.chain(in: folder)
      let judged = try GuestImages.raw(top, in: folder)
      let before = try GuestImages.raw(top, snapshot: "before", in: folder)
      try MountedImage.with(top, in: folder) { mount in
        let readers = try (0..<8).map { number in
          try TestProcess(
            number % 2 == 0
              ? ["/usr/bin/cmp", mount.file("disk.raw"), judged]
              : ["/usr/bin/cmp", mount.file("snapshots/before/disk.raw"), before])
        }
        for reader in readers { try reader.wait().expecting(0) }
      }
    }
  }

  @Test func answersOneByOne() throws {
    try TemporaryFolder.with { folder in
      let (top, _) = try GuestImages.chain(in: folder)
      try MountedImage.with(top, options: ["-s"], in: folder) { mount in
        try GuestImages.expectSame(mount.file("disk.raw"), GuestImages.raw(top, in: folder))
      }
    }
  }

  @Test func showsSizeRoomModeOwnerAndTime() throws {
    try TemporaryFolder.with { folder in
      let (top, _) = try GuestImages.chain(in: folder)
      var image = stat()
      #expect(unsafe stat(top, &image) == 0)
      let data = try ReferenceTool.map(top, format: "qcow2").filter { $0.isData && !$0.isZero }
      try MountedImage.with(top, options: ["-o", "uid=1234,gid=567,umask=077"], in: folder) { mount in
        var disk = stat()
        #expect(unsafe stat(mount.file("disk.raw"), &disk) == 0)
        #expect(disk.st_size == 24 << 20)
        #expect(disk.st_blocks == Int(data.reduce(0) { $0 + $1.length } / 512))
        #expect(disk.st_mode == S_IFREG | 0o400)
        #expect(disk.st_uid == 1234 && disk.st_gid == 567)
        #expect(disk.st_mtim.tv_sec == image.st_mtim.tv_sec && disk.st_mtim.tv_nsec == image.st_mtim.tv_nsec)
        var root = stat()
        #expect(unsafe stat(mount.path, &root) == 0)
        #expect(root.st_mode == S_IFDIR | 0o500)
        var snapshot = stat()
        #expect(unsafe stat(mount.file("snapshots/before"), &snapshot) == 0)
        // The image was last written just after the snapshot was made.
        #expect(
          abs(snapshot.st_mtim.tv_sec - image.st_mtim.tv_sec) < 60 && snapshot.st_mtim.tv_sec > 1_600_000_000)
      }
    }
  }

  @Test func refusesEveryChange() throws {
    try TemporaryFolder.with { folder in
      let (top, _) = try GuestImages.chain(in: folder)
      let digest = try TestProcess.run(["/usr/bin/sha256sum", top]).expecting(0).stdout
      try MountedImage.with(top, in: folder) { mount in
        let disk = mount.file("disk.raw")
        #expect(unsafe open(disk, O_RDWR) == -1 && errno == EROFS)
        #expect(unsafe open(mount.file("new"), O_WRONLY | O_CREAT, 0o644) == -1 && errno == EROFS)
        #expect(unsafe truncate(disk, 0) == -1 && errno == EROFS)
        #expect(unsafe unlink(disk) == -1 && errno == EROFS)
        #expect(unsafe mkdir(mount.file("folder"), 0o755) == -1 && errno == EROFS)
        #expect(unsafe rename(disk, mount.file("other")) == -1 && errno == EROFS)
        #expect(unsafe chmod(disk, 0o600) == -1 && errno == EROFS)
        #expect(unsafe open(mount.file("nothing"), O_RDONLY | O_CLOEXEC) == -1 && errno == ENOENT)
        #expect(unsafe open(mount.file("disk.raw/below"), O_RDONLY | O_CLOEXEC) == -1 && errno == ENOTDIR)
      }
      #expect(try TestProcess.run(["/usr/bin/sha256sum", top]).expecting(0).stdout == digest)
    }
  }

  /// The fields of a date at their ends: 1970, 2038, 2106, and parts of a second that are more than one.
  @Test func snapshotsHaveAnyDate() throws {
    try TemporaryFolder.with { folder in
      let image = folder.file("disk.qcow2")
      try ReferenceTool.qemuImg("create", "-q", "-f", "qcow2", image, "1M")
      let dates: [(seconds: UInt32, nanoseconds: UInt32)] = [
        (0, 0), (1 << 31 - 1, 999_999_999), (1 << 31, 1_000_000_000), (.max, .max), (1, 1 << 31),
      ]
      for index in dates.indices { try ReferenceTool.qemuImg("snapshot", "-c", "s\(index)", image) }
      var bytes = try Files.read(image)
      func number(at offset: Int, _ width: Int) -> Int {
        bytes[offset..<offset + width].reduce(0) { $0 << 8 | Int($1) }
      }
      var entry = number(at: 64, 8)
      for date in dates {
        for index in 0..<4 {
          bytes[entry + 16 + index] = UInt8(truncatingIfNeeded: date.seconds >> UInt32(24 - 8 * index))
          bytes[entry + 20 + index] = UInt8(truncatingIfNeeded: date.nanoseconds >> UInt32(24 - 8 * index))
        }
        let length = 40 + number(at: entry + 36, 4) + number(at: entry + 12, 2) + number(at: entry + 14, 2)
        entry += (length + 7) / 8 * 8
      }
      try Files.write(bytes, to: image)
      for words in [["snapshot", "-l"], ["info"], ["info", "--output=json"]] {
        let ours = try BuiltProduct.qemuImg.run(words + [image]).expecting(0).stdoutText
        let judged = try ReferenceTool.qemuImg.run(words + [image]).expecting(0).stdoutText
        // Newer versions say more of the image, in other columns, and show the machine's clock in another way.
        func said(_ text: String) -> [[Substring]] {
          text.split(separator: "\n").filter { $0.contains("date-") || $0.contains(" s") && $0.contains("-") }
            .map { line in line.split { $0 == " " || $0 == "," }.filter { $0 != "--" && !$0.contains(".") } }
        }
        #expect(said(ours) == said(judged), "\(words)")
        #expect(said(ours).count >= dates.count)
      }
      try MountedImage.with(image, in: folder) { mount in
        for (index, date) in dates.enumerated() {
          for name in ["snapshots/s\(index)", "snapshots/s\(index)/disk.raw"] {
            var status = stat()
            #expect(unsafe stat(mount.file(name), &status) == 0)
            #expect(status.st_mtim.tv_sec == Int(date.seconds), "\(name)")
            #expect(status.st_mtim.tv_nsec == Int(min(date.nanoseconds, 999_999_999)), "\(name)")
          }
        }
        let listed = try TestProcess.run(
          ["/bin/ls", "-l", "--time-style=+%s.%N", mount.file("snapshots")]
        ).expecting(0).stdoutText
        for date in dates {
          let part = String(1_000_000_000 + min(date.nanoseconds, 999_999_999)).dropFirst()
          #expect(listed.contains(" \(date.seconds).\(part) s"), "\(listed)")
        }
      }
    }
  }

  @Test func makesSnapshotsWithHostileNamesReachable() throws {
    try TemporaryFolder.with { folder in
      let image = folder.file("disk.qcow2")
      try ReferenceTool.qemuImg("create", "-f", "qcow2", image, "1M")
      let given = [
        "../../../etc/passwd", "..", "line\nfeed", "\u{202E}txt", String(repeating: "n", count: 255),
      ]
      for (index, name) in given.enumerated() {
        try ReferenceTool.io(["write -P \(index + 1) 0 64k"], on: image, format: "qcow2")
        try ReferenceTool.qemuImg("snapshot", "-c", name, image)
      }
      try MountedImage.with(image, in: folder) { mount in
        let listed = try names(in: mount.file("snapshots"))
        #expect(listed.count == given.count)
        #expect(listed.contains("..%2F..%2F..%2Fetc%2Fpasswd") && listed.contains("%2E%2E"))
        var values: Set<UInt8> = []
        for name in listed {
          let content = try Files.read(mount.file("snapshots/\(name)/disk.raw"))
          #expect(content.count == 1 << 20)
          values.insert(content[0])
        }
        #expect(values == [1, 2, 3, 4, 5])
      }
    }
  }
}
