import Foundation
import TestSupport
import Testing

/// `--allow-path`: the folders that hold what an image may name.
@Suite struct AllowPathTests {
  private func run(_ arguments: [String], _ folder: TemporaryFolder) throws -> ProcessResult {
    try BuiltProduct.qemuImg.run(arguments, folder: folder.path)
  }

  /// Every command that reads or writes through what an image names.
  private static let commands = [
    ["map", "in/image"], ["info", "--backing-chain", "in/image"],
    ["convert", "-O", "raw", "in/image", "copy"],
    ["compare", "in/image", "in/image"], ["measure", "-O", "qcow2", "in/image"],
    ["dd", "if=in/image", "of=copy"], ["resize", "in/image", "+1M"], ["commit", "in/image"],
    ["convert", "-n", "-O", "raw", "in/image", "in/other"], ["snapshot", "-c", "a", "in/image"],
    ["amend", "-o", "lazy_refcounts=on", "in/image"], ["bitmap", "--add", "in/image", "b"],
    ["rebase", "-b", "", "in/image"], ["check", "in/image"], ["check", "-r", "all", "in/image"],
    [
      "convert", "-O", "raw",
      "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"in/image\"}}", "c",
    ],
  ]

  /// Those that do not open what lies below an image.
  private func opensAll(_ command: [String], _ image: NamingImage) -> Bool {
    switch command[0] {
    // The file as plain bytes names nothing.
    case "convert": !command.contains { $0.hasPrefix("json:") }
    // What it explains it does not open; the files below it checks never.
    case "check": false
    // A bitmap is the image's own.
    case "bitmap": image.below.isEmpty
    case "info": !image.below.isEmpty
    default: true
    }
  }

  @Test(arguments: NamingImage.all)
  func nothingOutsideOfTheFoldersIsOpened(_ image: NamingImage) throws {
    try image.with { folder in
      try folder.write([UInt8](repeating: 0, count: 4 << 20), to: "in/other")
      let before = try Files.read(folder.file("in/image"))
      let trap = try OpenTrap(on: (image.parts + image.below).map(folder.file))
      for command in Self.commands where opensAll(command, image) {
        let result = try run(["--allow-path", "in"] + command, folder)
        #expect(result.status != 0, "\(command)")
        // A VDI does not say a name: one that may not be opened is not found.
        let words = image.description == "vdi parent" ? "parent" : "outside of the folders that --allow-path"
        #expect(result.stderrText.contains(words), "\(command): \(result.stderrText)")
        #expect(trap.opened() == [], "\(command)")
      }
      #expect(try Files.read(folder.file("in/image")) == before)
    }
  }

  @Test(arguments: NamingImage.all)
  func whatLiesInTheFoldersIsOpened(_ image: NamingImage) throws {
    try image.with { folder in
      let trap = try OpenTrap(on: (image.parts + image.below).map(folder.file))
      for folders in [["in", "out"], ["/"], [folder.path + "/in/.."]] {
        let options = folders.flatMap { ["--allow-path", $0] }
        try run(options + ["convert", "-O", "raw", "in/image", "copy"], folder).expecting()
        #expect(trap.opened().isEmpty == false)
        try run(["info", "--backing-chain"] + options + ["in/image"], folder).expecting()
      }
    }
  }

  /// An image that names what it may not is still explained.
  @Test(arguments: NamingImage.all)
  func explainingAnImageOpensNothingThatItNames(_ image: NamingImage) throws {
    try image.with { folder in
      let trap = try OpenTrap(on: (image.parts + image.below).map(folder.file))
      for options in [["info"], ["--allow-path", "in", "info", "-U"], ["info", "--output=json"]] {
        try run(options + ["in/image"], folder).expecting()
        #expect(trap.opened() == [])
      }
      // The chain is what lies below, and no more.
      try run(["info", "--backing-chain", "in/image"], folder).expecting()
      #expect(Set(trap.opened()) == Set(image.below.map(folder.file)))
      // Nothing of it has to be there.
      for name in image.parts + image.below { try FileManager.default.removeItem(atPath: folder.file(name)) }
      try run(["info", "in/image"], folder).expecting()
    }
  }

  /// What the user names himself is his own choice; what that names is not.
  @Test func namesOnTheCommandLineAreTheUsers() throws {
    try TemporaryFolder.with { folder in
      for name in ["in", "out"] { _ = try folder.makeFolder(name) }
      let allow = ["--allow-path", "in"]
      try run(["create", "-q", "-f", "raw", "out/base", "1M"], folder).expecting()
      try run(["create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "out/top"], folder).expecting()
      let base = folder.file("out/base")
      let own: [[String]] = [
        ["create", "-q", "-f", "qcow2", "-b", "../out/base", "-F", "raw", "in/a"],
        ["create", "-q", "-f", "qcow2", "-o", "data_file=../out/data", "in/b", "1M"],
        ["convert", "-O", "qcow2", "-B", base, "-F", "raw", "out/base", "in/c"],
        ["convert", "-O", "vmdk", "-o", "subformat=monolithicFlat", "in/c", "out/d.vmdk"],
        [
          "convert", "-O", "qcow2", "--image-opts",
          "driver=qcow2,file.filename=in/b,data-file.filename=out/data", "out/e",
        ],
        [
          "map", "--image-opts",
          "driver=qcow2,file.filename=in/a,backing.driver=raw,backing.file.filename=out/base",
        ],
        ["rebase", "-u", "-b", base, "-F", "raw", "in/a"],
      ]
      for command in own {
        // The last but one reads what the third made: that one names the base.
        let more = command.contains("in/c") && command[1] != "-O" ? ["--allow-path", "out"] : []
        let needsOut = command.last == "out/d.vmdk" ? ["--allow-path", "out"] : more
        try run(allow + needsOut + command, folder).expecting()
      }
      for command in [
        ["create", "-q", "-f", "qcow2", "-b", "../out/top", "-F", "qcow2", "in/x"],
        ["convert", "-O", "qcow2", "-B", folder.file("out/top"), "-F", "qcow2", "out/base", "in/y"],
        [
          "map", "--image-opts",
          "driver=qcow2,file.filename=in/a,backing.driver=qcow2,backing.file.filename=out/top",
        ],
        ["rebase", "-b", base, "-F", "raw", "in/a"],
      ] {
        let result = try run(allow + command, folder)
        #expect(result.status == 1, "\(command)")
        #expect(result.stderrText.contains("--allow-path"), "\(command): \(result.stderrText)")
      }
    }
  }
}
