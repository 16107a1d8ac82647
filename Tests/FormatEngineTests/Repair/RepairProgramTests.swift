import FormatEngine
import TestSupport
import Testing

/// The same with our qemu-img itself: exit status, what it leaves in the file, and what a salvage writes.
@Suite struct RepairProgramTests {
  /// Only images whose files all lie in one folder.
  private static let subjects = RepairSubject.all.filter { subject in
    guard let image = try? subject.image(76) else { return false }
    return image.below == nil || image.others["base.raw"] != nil
  }

  @Test(arguments: subjects) func programDoesWhatTheEngineDoes(_ subject: RepairSubject) throws {
    var random = SeededRandom.fromEnvironment(or: 76)
    let image = try subject.image(76)
    let kinds = subject.damages(image)
    for _ in 0..<Effort.rounds(2) {
      let kind = kinds.any(&random)
      var file = DamagedFile(bytes: image.bytes, isBigEndian: image.isBigEndian)
      kind.apply(&file, &random)
      let what = "\(subject.name), \(kind.name), \(random)"
      try TemporaryFolder.with { folder in
        let path = try image.write(file.bytes, in: folder)
        try expectSalvaged(image, file.bytes, path, folder, what)
        try expectMended(image, file.bytes, path, folder, what)
      }
      Tally.add("repairs", 2)
    }
  }

  private func expectMended(
    _ image: SoundImage, _ damaged: [UInt8], _ path: String, _ folder: TemporaryFolder, _ what: String
  ) throws {
    let store = MemoryStore(damaged)
    let report = try RepairTrial.report(image, store, .all)
    let after = try RepairTrial.report(image, MemoryStore(store.snapshot), nil)
    let result = try BuiltProduct.qemuImg.run(
      ["check", "-q", "-f", image.formatName, "-r", "all", path], folder: folder.path)
    let text = "\(what): \(result.stdoutText)\(result.stderrText)"
    guard let report, report.failure == nil, let after else {
      #expect(result.status == 1 && !result.stderr.isEmpty, "\(text)")
      return
    }
    let expected: CInt = after.corruptions > 0 ? 2 : after.leaks > 0 ? 3 : 0
    #expect(result.status == expected, "\(text)")
    // New headers of VHDX have ids of chance.
    guard image.formatName != "vhdx" else { return }
    let tables = image.extent.map { folder.file($0.name) } ?? path
    #expect(try Files.read(tables) == store.snapshot, "\(text)")
  }

  private func expectSalvaged(
    _ image: SoundImage, _ damaged: [UInt8], _ path: String, _ folder: TemporaryFolder, _ what: String
  ) throws {
    let target = folder.file("salvaged.raw")
    var arguments = ["convert", "--salvage", "-O", "raw"]
    arguments += ReferenceTool.names(path, image.formatName, image.passphrase) + [target]
    let result = try BuiltProduct.qemuImg.run(arguments, folder: folder.path)
    guard (try? MemoryFiles(image, MemoryStore(damaged)).open(.readOnly)) != nil else {
      #expect(result.status == 1, "\(what): \(result.stderrText)")
      return
    }
    let content = ReadableContent(image, damaged)
    guard let disk = content.disk, disk.bytes.count < ReadableContent.Disk.maximumByteCount else { return }
    #expect(result.status == 0, "\(what): \(result.stderrText)")
    let bytes = try Files.read(target)
    for sector in 0..<disk.bytes.count / 512 where !disk.unreadable.contains(sector) {
      guard bytes.equals(disk.bytes, from: sector * 512, to: sector * 512, count: 512) else {
        Issue.record("\(what): sector \(sector) was salvaged as something else")
        break
      }
    }
    let named = result.stderrText.split(separator: "\n").contains { $0.contains("error while reading") }
    #expect(named == !disk.unreadable.isEmpty, "\(what): \(result.stderrText)")
  }
}
