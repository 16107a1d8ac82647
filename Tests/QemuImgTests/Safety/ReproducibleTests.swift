import Foundation
import TestSupport
import Testing

/// SOURCE_DATE_EPOCH: two runs make the same files.
@Suite struct ReproducibleTests {
  /// A format and its options, `-c` before them where it packs.
  static let rows: [(name: String, arguments: [String])] =
    [
      "raw", "qcow2", "qcow2 compat=0.10", "qcow2 extended_l2=on", "qcow2 data_file=data",
      "qcow2 preallocation=full",
      "qcow", "qed", "parallels", "vdi", "vdi static=on", "vpc", "vpc subformat=fixed", "vhdx",
      "vhdx subformat=fixed", "vmdk", "vmdk subformat=monolithicFlat", "vmdk subformat=twoGbMaxExtentSparse",
      "vmdk subformat=twoGbMaxExtentFlat", "vmdk subformat=streamOptimized",
    ].map { text in
      let words = text.split(separator: " ").map(String.init)
      return (text, [words[0]] + words.dropFirst().flatMap { ["-o", $0] })
    }

  private static let moment = ["SOURCE_DATE_EPOCH": "1700000000"]

  /// Runs qemu-img in a folder.
  private func run(_ arguments: [String], in folder: String, _ environment: [String: String] = moment) throws
  {
    try BuiltProduct.qemuImg.run(arguments, environment: environment, folder: folder).expecting()
  }

  private func content(of folder: String) throws -> [String: [UInt8]] {
    var files: [String: [UInt8]] = [:]
    for name in try FileManager.default.contentsOfDirectory(atPath: folder) {
      files[name] = try Files.read("\(folder)/\(name)")
    }
    return files
  }

  /// Runs `make` for every row, at two times and in two folders, and hands over what differs.
  private func differences(
    _ first: [String: String] = moment, _ second: [String: String] = moment,
    make: (_ arguments: [String], _ folder: String, _ environment: [String: String]) throws -> Void
  ) throws -> [String] {
    try TemporaryFolder.with { folder in
      var differing: Set<String> = []
      for (number, environment) in [first, second].enumerated() {
        for row in Self.rows {
          let place = try folder.makeFolder("run \(number)/\(row.name)")
          try make(row.arguments, place, environment)
          guard number == 1 else { continue }
          let other = try content(of: folder.file("run 0/\(row.name)"))
          let made = try content(of: place)
          #expect(!made.isEmpty && Set(made.keys) == Set(other.keys))
          if made != other { differing.insert(row.name) }
          for place in ["run 0", "run 1"] {
            try FileManager.default.removeItem(atPath: folder.file("\(place)/\(row.name)"))
          }
        }
        // Ids and dates that come from the clock change.
        if number == 0 { Thread.sleep(forTimeInterval: 1.1) }
      }
      return differing.sorted()
    }
  }

  /// Those that record ids or dates.
  private static let named = rows.map(\.name).filter { name in
    ["vdi", "vpc", "vhdx", "vmdk"].contains { name.hasPrefix($0) }
  }.sorted()

  private func create(_ arguments: [String], _ folder: String, _ environment: [String: String]) throws {
    try run(["create", "-q", "-f"] + arguments + ["image", "5M"], in: folder, environment)
  }

  /// A disk whose content has a seed.
  private func source(_ seed: UInt64, _ folder: TemporaryFolder) throws -> String {
    var random = SeededRandom(seed: seed)
    var bytes = [UInt8](repeating: 0, count: 5 << 20)
    for start in stride(from: 0, to: bytes.count, by: 300_000) {
      let count = min(170_000, bytes.count - start)
      bytes.replaceSubrange(start..<start + count, with: random.bytes(count))
    }
    return try folder.write(bytes, to: "source \(seed)")
  }

  @Test func newImagesAreTheSameFiles() throws {
    #expect(try differences(make: create) == [])
  }

  @Test func withoutTheVariableAndAtOtherMomentsIdsDiffer() throws {
    #expect(try differences([:], [:], make: create) == Self.named)
    #expect(try differences(Self.moment, ["SOURCE_DATE_EPOCH": "1700000001"], make: create) == Self.named)
  }

  @Test func convertedImagesAreTheSameFiles() throws {
    try TemporaryFolder.with { folder in
      let source = try source(1, folder)
      let differing = try differences { arguments, place, environment in
        try run(
          ["convert", "-m", "8", "-f", "raw", "-O"] + arguments + [source, "image"], in: place, environment)
        if arguments == ["qcow2"] {
          try run(
            ["convert", "-c", "-m", "8", "-f", "raw", "-O", "qcow2", source, "packed"], in: place, environment
          )
          try run(["snapshot", "-c", "name", "image"], in: place, environment)
        }
      }
      #expect(differing == [])
    }
  }

  /// Disks of the same name, size and moment are told apart by what they hold.
  @Test func otherContentGivesOtherIds() throws {
    try TemporaryFolder.with { folder in
      var made: [[String: [UInt8]]] = []
      for seed in [UInt64(1), 2] {
        let source = try source(seed, folder)
        let place = try folder.makeFolder("run \(seed)")
        for (name, arguments) in [("vdi", ["vdi"]), ("vpc", ["vpc"]), ("vhdx", ["vhdx"]), ("vmdk", ["vmdk"])]
        {
          try run(["convert", "-f", "raw", "-O"] + arguments + [source, name], in: place)
          try run(["dd", "-f", "raw", "-O"] + arguments + ["if=\(source)", "of=dd.\(name)"], in: place)
        }
        made.append(try content(of: place))
      }
      // Where the ids stand: VDI's in the header, VPC's in the copy of its footer, VHDX's data write GUID, the CID.
      for (name, range) in [("vdi", 392..<408), ("vpc", 68..<84), ("vhdx", 65536 + 32..<65536 + 48)] {
        for name in [name, "dd.\(name)"] {
          let ids = made.map { $0[name].map { Array($0[range]) } }
          #expect(ids[0] != nil && ids[0] != ids[1], "\(name)")
        }
      }
      for name in ["vmdk", "dd.vmdk"] {
        let ids = made.map { files in
          String(decoding: files[name]?[512..<1536] ?? [], as: UTF8.self).split(separator: "\n")
            .first { $0.hasPrefix("CID=") }
        }
        #expect(ids[0] != nil && ids[0] != ids[1], "\(name)")
      }
    }
  }

  /// Changes of an image that was there: what is written, committed, rebased.
  @Test func laterChangesAreTheSameToo() throws {
    try TemporaryFolder.with { folder in
      let source = try source(3, folder)
      var made: [[String: [UInt8]]] = []
      for run in ["a", "b"] {
        let place = try folder.makeFolder(run)
        for (format, name) in [("vmdk", "vmdk"), ("vhdx", "vhdx"), ("vpc", "vhd"), ("vdi", "vdi")] {
          let (base, top) = ("base.\(name)", "top.\(name)")
          try self.run(["create", "-q", "-f", format, base, "5M"], in: place)
          try self.run(["create", "-q", "-f", format, "-b", base, "-F", format, top], in: place)
          try self.run(["convert", "-n", "-f", "raw", "-O", format, source, top], in: place)
          try self.run(["commit", "-q", "-f", format, top], in: place)
          // A VMDK does not change its size.
          if format != "vmdk" { try self.run(["resize", "-q", "-f", format, base, "6M"], in: place) }
        }
        try self.run(["create", "-q", "-f", "qcow2", "image", "5M"], in: place)
        try self.run(["snapshot", "-c", "name", "image"], in: place)
        made.append(try content(of: place))
      }
      for (name, bytes) in made[0] { #expect(bytes == made[1][name], "\(name)") }
      let list = try BuiltProduct.qemuImg.run(["info", "--output=json", "image"], folder: folder.file("a"))
      #expect(list.stdoutText.contains("\"date-sec\": 1700000000"))
      #expect(list.stdoutText.contains("\"date-nsec\": 0"))
    }
  }

  /// Keys stay random, and the command says so.
  @Test func encryptedImagesStayDifferent() throws {
    try TemporaryFolder.with { folder in
      for (format, option) in [("luks", "key-secret"), ("qcow2", "encrypt.format=luks,encrypt.key-secret")] {
        for name in ["a", "b"] {
          let result = try BuiltProduct.qemuImg.run(
            [
              "create", "-q", "--object", "secret,id=s,data=x", "-f", format, "-o",
              "\(option)=s,\(format == "luks" ? "" : "encrypt.")iter-time=10", name, "1M",
            ],
            environment: Self.moment, folder: folder.path
          ).expecting()
          #expect(result.stderrText.contains("keys and salts are random"))
        }
        #expect(try Files.read(folder.file("a")) != Files.read(folder.file("b")))
      }
    }
  }
}
