import Foundation
import TestSupport
import Testing

/// What of the host an image may lead to, encrypted images, images in use, and other ways to say what is meant.
@Suite(.enabled(if: MountedImage.isPossible), .serialized)
struct OpeningTests {
  private func refusal(_ arguments: [String], in folder: TemporaryFolder) throws -> String {
    let mountPoint = try folder.makeFolder("refused-\(UUID().uuidString.prefix(8))")
    let result = try TestProcess.run(
      [BuiltProduct.imgfs.path] + arguments + [mountPoint], folder: folder.path, timeout: 20)
    #expect(result.status == 1)
    if MountedImage.isMounted(mountPoint) {
      Issue.record("\(arguments): it is mounted")
      try BuiltProduct.imgfs.run(["--unmount", mountPoint]).expecting(0)
    }
    return result.stderrText
  }

  private func expectMounted(
    _ image: String, _ options: [String], showing byte: UInt8, in folder: TemporaryFolder,
    location: SourceLocation = #_sourceLocation
  ) throws {
    try MountedImage.with(image, options: options, in: folder) { mount in
      let content = try Files.read(mount.file("disk.raw"))
      #expect(content.allSatisfy { $0 == byte } && !content.isEmpty, sourceLocation: location)
    }
  }

  // MARK: Files that images name

  /// A base in one folder and an image over it in another one, by a path from there or from the root.
  private func withChain(_ body: (TemporaryFolder) throws -> Void) throws {
    try TemporaryFolder.with { folder in
      for name in ["in", "in/deeper", "out"] { _ = try folder.makeFolder(name) }
      for name in ["in/deeper/base", "out/base"] {
        _ = try folder.write([UInt8](repeating: 5, count: 1 << 20), to: name)
      }
      try body(folder)
    }
  }

  private func makeTop(_ name: String, over base: String, in folder: TemporaryFolder) throws -> String {
    let path = folder.file(name)
    try ReferenceTool.qemuImg("create", "-q", "-f", "qcow2", "-u", "-b", base, "-F", "raw", path, "1M")
    return path
  }

  @Test func opensWhatLiesInTheFolderOfTheImage() throws {
    try withChain { folder in
      let near = try makeTop("in/near.q", over: "deeper/base", in: folder)
      try expectMounted(near, [], showing: 5, in: folder)
      let path = try makeTop("in/path.q", over: folder.file("in/deeper/base"), in: folder)
      try expectMounted(path, [], showing: 5, in: folder)
      // By a link from elsewhere: the image's own folder is where it lies.
      try FileManager.default.createSymbolicLink(atPath: folder.file("out/link.q"), withDestinationPath: path)
      try expectMounted(folder.file("out/link.q"), [], showing: 5, in: folder)
    }
  }

  @Test(arguments: ["../out/base", "ABSOLUTE", "deeper/link", "linked/base", "deeper/../../out/base"])
  func namesFilesElsewhereOnlyWhereItMay(_ given: String) throws {
    try withChain { folder in
      let name = given == "ABSOLUTE" ? folder.file("out/base") : given
      for (link, target) in [("in/deeper/link", "out/base"), ("in/linked", "out")] {
        try FileManager.default.createSymbolicLink(
          atPath: folder.file(link), withDestinationPath: folder.file(target))
      }
      let top = try makeTop("in/top.q", over: name, in: folder)
      let message =
        "imgfs: Could not open '\(top)': Could not open backing file: The backing file '\(name)' of '\(top)' is not"
        + " opened: it lies outside of the image's folder; the mount option allow_path=FOLDER allows other folders\n"
      #expect(try refusal([top], in: folder) == message)
      #expect(try refusal(["--allow-path", "in/deeper", top], in: folder) == message)
      for options in [["--allow-path", folder.file("out")], ["-o", "allow_path=/"]] {
        try expectMounted(top, options, showing: 5, in: folder)
      }
      try expectMounted(top, ["--backing=none"], showing: 0, in: folder)
      #expect(
        try refusal(["-o", "allow_path=/nosuch", top], in: folder)
          == "imgfs: allow_path: Could not open the folder '/nosuch': No such file or directory\n")
    }
  }

  /// Beside a device lie the machine's other disks.
  /// A name from an image begins no line of its own.
  @Test func complaintsShowNamesAsTheyAre() throws {
    try withChain { folder in
      let name = "../out/x\nimgfs: all is well\u{1B}[2J"
      _ = try folder.write([5], to: "out/x\nimgfs: all is well\u{1B}[2J")
      let top = try makeTop("in/top.q", over: name, in: folder)
      let message = try refusal([top], in: folder)
      #expect(message.contains("'../out/x\\u{a}imgfs: all is well\\u{1b}[2J'"), "\(message)")
      #expect(message.split(separator: "\n").count == 1, "\(message)")
    }
  }

  /// A disk that is written, and raw only by its bytes: that is said, once, and how to say what it is. What it is said to be, what is
  /// only read, what keeps its writes elsewhere, and what cannot be taken for raw needs no word.
  @Test func saysWhatItTookARawDiskFor() throws {
    try TemporaryFolder.with { folder in
      let disk = try folder.write([UInt8](repeating: 5, count: 1 << 20), to: "disk.img")
      let image = folder.file("image.qcow2")
      try ReferenceTool.qemuImg("create", "-q", "-f", "qcow2", image, "1M")
      func said(_ words: [String]) throws -> String {
        let mountPoint = try folder.makeFolder("mount-\(UUID().uuidString.prefix(8))")
        let result = try BuiltProduct.imgfs.run(words + [mountPoint]).expecting(0)
        defer { _ = try? BuiltProduct.imgfs.run(["--unmount", mountPoint]) }
        if words == ["-o", "rw", disk] {
          // The bytes of another format's header.
          let file = unsafe open(mountPoint + "/disk.raw", O_WRONLY | O_CLOEXEC)
          let head: [UInt8] = [0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3] + [UInt8](repeating: 0, count: 504)
          let count = unsafe head.withUnsafeBytes { unsafe pwrite(file, $0.baseAddress, 512, 0) }
          #expect(fsync(file) < 0 || count < 0, "written")
          close(file)
        }
        return result.stderrText
      }
      #expect(
        try said(["-o", "rw", disk]) == """
          imgfs: warning: The format of '\(disk)' was not given, and it was taken for raw
          Nothing is written to its beginning that would make it look like another format; -F raw allows it.

          """)
      for words in [
        ["-F", "raw", "-o", "rw", disk], ["-o", "ro", disk], [disk], ["-o", "rw", "--overlay=tmp", disk],
        ["-o", "rw", image], ["-o", "rw", "-F", "qcow2", image],
      ] {
        let words = try said(words)
        #expect(words == "")
      }
      #expect(try Files.read(disk) == [UInt8](repeating: 5, count: 1 << 20))
    }
  }

  /// As any file that cannot be opened; only images that name each other in a circle are no accident.
  @Test func aLinkToItselfIsAMissingFile() throws {
    try withChain { folder in
      try FileManager.default.createSymbolicLink(
        atPath: folder.file("in/circle"), withDestinationPath: "circle")
      let top = try makeTop("in/top.q", over: "circle", in: folder)
      try MountedImage.with(top, in: folder) { mount in
        let layers = try FileManager.default.contentsOfDirectory(atPath: mount.file("layers"))
        #expect(layers.count == 2)
      }
    }
  }

  @Test(.enabled(if: MountedImage.canLoopMount)) func imagesOnDevicesNameNothing() throws {
    try withChain { folder in
      let top = try makeTop("in/top.q", over: "/dev/zero", in: folder)
      // Devices have whole sectors.
      try TestProcess.run(["/usr/bin/truncate", "-s", "1M", top]).expecting(0)
      let loop = try TestProcess.run(["/sbin/losetup", "--find", "--show", "--read-only", top]).expecting(0)
      let device = String(loop.stdoutText.dropLast())
      defer { _ = try? TestProcess.run(["/sbin/losetup", "--detach", device]) }
      #expect(try refusal([device], in: folder).contains("it lies outside of the image's folder"))
      // And what is given by options is the user's own.
      try expectMounted(
        "driver=qcow2,file.filename=\(device),backing.driver=raw,backing.file.filename=\(folder.file("out/base"))",
        ["--image-opts"], showing: 5, in: folder)
    }
  }

  /// A folder that is an image is where it names files.
  @Test(arguments: ["disk.hdd", "disk.hdd/", "link.hdd", "disk.hdd/DiskDescriptor.xml"])
  func opensABundleByItsFolder(_ name: String) throws {
    try TemporaryFolder.with { folder in
      var random = SeededRandom(seed: 68)
      let model = try #require(
        try ParallelsBundleImage().make(in: try folder.makeFolder("disk.hdd"), &random).last)
      try FileManager.default.createSymbolicLink(
        atPath: folder.file("link.hdd"), withDestinationPath: "disk.hdd")
      try MountedImage.with(folder.file(name), in: folder) { mount in
        let bytes = try Files.read(mount.file("disk.raw"))
        #expect(ModelDisk.firstDifference(bytes, model.bytes) == nil)
      }
    }
  }

  // MARK: Secrets

  static let encrypted: [(format: String, options: [String])] = [
    ("luks", ["iter-time=10"]), ("qcow2", ["encrypt.format=luks", "encrypt.iter-time=10"]),
    ("qcow2", ["encrypt.format=aes"]), ("qcow", ["encrypt.format=aes"]),
  ]

  @Test(arguments: encrypted.indices) func takesPassphrasesFromFilesAndDescriptors(_ index: Int) throws {
    let (format, options) = Self.encrypted[index]
    try TemporaryFolder.with { folder in
      let image = folder.file("secret.img")
      try ReferenceTool.create(
        image, format: format, size: 1 << 18, options: options, passphrase: "open sesame")
      try ReferenceTool.io(["write -P 3 0 256k"], on: image, format: format, passphrase: "open sesame")
      let plain = try folder.write(Array("open sesame".utf8), to: "plain")
      let line = try folder.write(Array("open sesame\n".utf8), to: "line")
      if index == 0 {
        try expectMounted(image, ["--passphrase-file", plain], showing: 3, in: folder)
        try expectMounted(
          "driver=luks,key-secret=mine,file.filename=\(image)",
          ["--image-opts", "--object", "secret,id=mine,file=\(plain)"], showing: 3, in: folder)
      }
      try expectMounted(image, ["-o", "passphrase_file=\(line)"], showing: 3, in: folder)

      // Out of a pipe, before the process is in the background; nothing of it stays to be seen.
      let mountPoint = try folder.makeFolder("mnt")
      let imgfs = try BuiltProduct.imgfs.path
      try TestProcess.run([
        "/bin/sh", "-c",
        "cat \(line) | \(imgfs) --passphrase-fd 0 --pid-file \(mountPoint).pid \(image) \(mountPoint)",
      ]).expecting(0)
      #expect(try Files.read(mountPoint + "/disk.raw").allSatisfy { $0 == 3 })
      let process = String(decoding: try Files.read(mountPoint + ".pid"), as: UTF8.self).dropLast()
      let words = String(decoding: try Files.read("/proc/\(process)/cmdline"), as: UTF8.self)
      #expect(words.contains("passphrase-fd") && !words.contains("sesame"))
      try BuiltProduct.imgfs.run(["--unmount", mountPoint]).expecting(0)
    }
  }

  @Test func saysWhatIsWrongWithAPassphrase() throws {
    try TemporaryFolder.with { folder in
      let image = folder.file("secret.img")
      try ReferenceTool.create(
        image, format: "luks", size: 1 << 18, options: ["iter-time=10"], passphrase: "open sesame")
      let wrong = try folder.write(Array("open barley".utf8), to: "wrong")
      #expect(
        try refusal([image], in: folder)
          == "imgfs: Could not open '\(image)': Parameter 'key-secret' is required for cipher\n"
          + "--passphrase-file FILE gives its passphrase.\n")
      #expect(
        try refusal(["--passphrase-file", wrong, image], in: folder)
          == "imgfs: Could not open '\(image)': Invalid password, cannot unlock any keyslot\n")
      let missing = try refusal(["--passphrase-file", "missing", image], in: folder)
      #expect(missing.contains("missing") && missing.contains("No such file or directory"))
      #expect(try refusal(["--passphrase-fd", "99", image], in: folder).contains("Bad file descriptor"))
      #expect(
        try refusal(["--object", "secret,id=a", image], in: folder)
          == "imgfs: Either 'file' or 'data' must be provided\n")
      let binary = try folder.write([0xFF, 0xFE], to: "binary")
      #expect(
        try refusal(["--passphrase-file", binary, image], in: folder).contains(
          "The passphrase is not valid UTF-8"))
    }
  }

  /// How often a file is opened while `body` runs.
  private func openings(of path: String, _ body: () throws -> Void) throws -> Int {
    let watch = inotify_init1(CInt(IN_NONBLOCK | IN_CLOEXEC))
    defer { close(watch) }
    // Like events that follow each other are one: the closings keep them apart.
    #expect(unsafe inotify_add_watch(watch, path, UInt32(IN_OPEN | IN_CLOSE)) >= 0)
    try body()
    // Each event of a file that is watched itself has 16 bytes, the second four of them say what happened.
    var events = [UInt32](repeating: 0, count: 4096)
    let count = max(0, unsafe read(watch, &events, events.count * 4)) / 16
    return (0..<count).filter { events[4 * $0 + 1] & UInt32(IN_OPEN) != 0 }.count
  }

  /// What is wrong with it is wrong for reading too: nobody waits for a second derivation of the key.
  @Test func anImageThatCannotBeReadEitherIsTriedOnce() throws {
    try TemporaryFolder.with { folder in
      let image = folder.file("secret.img")
      try ReferenceTool.create(
        image, format: "luks", size: 1 << 18, options: ["iter-time=10"], passphrase: "open sesame")
      let wrong = try folder.write(Array("open barley".utf8), to: "wrong")
      var messages: [String] = []
      let counts = try ["ro", "rw"].map { access in
        try openings(of: image) {
          messages.append(try refusal(["-o", access, "--passphrase-file", wrong, image], in: folder))
        }
      }
      #expect(counts[0] > 0 && counts[0] == counts[1])
      #expect(messages[0] == messages[1])
    }
  }

  /// It is there, and only wants its passphrase.
  @Test func anEncryptedFileBelowIsNotMissing() throws {
    try TemporaryFolder.with { folder in
      let top = folder.file("top.q")
      try ReferenceTool.create(
        folder.file("base"), format: "luks", size: 1 << 18, options: ["iter-time=10"],
        passphrase: "open sesame")
      try ReferenceTool.io(
        ["write -P 3 0 256k"], on: folder.file("base"), format: "luks", passphrase: "open sesame")
      try ReferenceTool.qemuImg("create", "-q", "-f", "qcow2", "-u", "-b", "base", "-F", "luks", top, "256k")
      let right = try folder.write(Array("open sesame".utf8), to: "right")
      let wrong = try folder.write(Array("open barley".utf8), to: "wrong")
      #expect(
        try refusal([top], in: folder).hasSuffix(
          "Parameter 'key-secret' is required for cipher\n--passphrase-file FILE gives its passphrase.\n"))
      #expect(
        try refusal(["--passphrase-file", wrong, top], in: folder).hasSuffix(
          "Invalid password, cannot unlock any keyslot\n"))
      try expectMounted(top, ["--passphrase-file", right], showing: 3, in: folder)
    }
  }

  // MARK: Images in use

  @Test func looksAtARunningMachinesImageOnlyWhenToldTo() throws {
    try TemporaryFolder.with { folder in
      let image = folder.file("disk.q")
      try ReferenceTool.create(image, format: "qcow2", size: 1 << 20)
      try ReferenceTool.io(["write -P 4 0 1M"], on: image, format: "qcow2")
      try Holder.with("qcow2,file.driver=file,file.filename=disk.q", in: folder.path) {
        let message = try refusal([image], in: folder)
        #expect(message.contains("Is another process using the image [\(image)]?"))
        #expect(message.contains("--force-share"))
        let mountPoint = try folder.makeFolder("mnt")
        for option in [["-U"], ["-o", "ro,force_share"]] {
          let result = try BuiltProduct.imgfs.run(option + [image, mountPoint]).expecting(0)
          #expect(
            result.stderrText
              == "imgfs: warning: '\(image)' may be changing: what is seen may be stale, or not fit together\n"
          )
          #expect(try Files.read(mountPoint + "/disk.raw").allSatisfy { $0 == 4 })
          let write = try TestProcess.run(["/bin/sh", "-c", "echo >>\(mountPoint)/disk.raw"])
          #expect(write.stderrText.contains("Read-only file system") || write.stderrText.contains("denied"))
          try BuiltProduct.imgfs.run(["--unmount", mountPoint]).expecting(0)
        }
      }
      #expect(
        try refusal(
          ["-U", "--image-opts", "driver=qcow2,force-share=off,file.filename=\(image)"], in: folder
        )
        .contains("--force-share/-U conflicts with image options"))
    }
  }

  // MARK: Snapshots

  @Test func mountsASnapshotInTheImagesPlace() throws {
    try TemporaryFolder.with { folder in
      let image = folder.file("disk.q")
      try ReferenceTool.create(image, format: "qcow2", size: 1 << 20)
      try ReferenceTool.io(["write -P 4 0 1M"], on: image, format: "qcow2")
      try ReferenceTool.qemuImg("snapshot", "-c", "before, and", image)
      try ReferenceTool.io(["write -P 6 0 1M"], on: image, format: "qcow2")
      for options in [["--snapshot", "before, and"], ["-o", "snapshot=before\\, and"], ["--snapshot=1"]] {
        try expectMounted(image, options, showing: 4, in: folder)
      }
      try expectMounted(image, [], showing: 6, in: folder)
      #expect(
        try refusal(["--snapshot", "after", image], in: folder)
          == "imgfs: Could not open '\(image)': There is no snapshot 'after'\n")
      let raw = try folder.write([1], to: "disk.raw")
      #expect(
        try refusal(["-F", "raw", "--snapshot", "a", raw], in: folder)
          == "imgfs: Could not open '\(raw)': Images of the format 'raw' have no internal snapshots\n")
    }
  }
}
