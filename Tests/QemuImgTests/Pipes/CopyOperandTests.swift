import Foundation
import TestSupport
import Testing

/// `dd` and `convert` of several images with operands as they come, beside the judge.
@Suite struct CopyOperandTests {
  private static func number(_ random: inout SeededRandom, _ most: Int) -> String {
    let value = random.below(most)
    return switch random.below(6) {
    case 0: "\(value / 1024)k"
    case 1: "\(value / 1024).5K"
    case 2: "0x\(String(value, radix: 16))"
    case 3: value > 900_000 ? "1M" : "\(value)"
    default: "\(value)"
    }
  }

  /// Some operands in some order, now and then a wrong one or one twice. Bytes by the piece are for a small disk:
  /// each block is a read and a write.
  private static func operands(_ random: inout SeededRandom, isSmall: Bool) -> [String] {
    var words: [String] = []
    let blockSize =
      isSmall ? [1, 7, 511][random.below(3)] : [512, 513, 4096, 65536, 1 << 20, 3_000_000][random.below(6)]
    if !random.oneIn(4) {
      words.append("bs=" + (random.oneIn(3) ? "\(max(blockSize / 1024, 1))k" : "\(blockSize)"))
    }
    let most = max(2, (isSmall ? 75_000 : 2_500_000) / (random.oneIn(8) ? 512 : blockSize))
    if random.oneIn(2) { words.append("count=" + number(&random, most)) }
    if random.oneIn(2) { words.append("skip=" + number(&random, most)) }
    if random.oneIn(12) {
      words.append(
        [
          "bs=0", "bs=1x2", "count=-1", "skip=1Q", "conv=notrunc", "count", "seek=1", "bs=3G", "count=8E",
          "iflag=x",
          "bs=512", "count=2", "skip=", "bs=1b", "count= 1",
        ][random.below(15)])
    }
    return words.shuffled(using: &random)
  }

  private static func disk(_ random: inout SeededRandom, _ size: Int) -> [UInt8] {
    var model = ModelDisk(byteCount: size)
    for _ in 0..<4 where size > 0 {
      let range = random.range(in: size, most: 200_000)
      model.write(random.bytes(range.count), at: range.lowerBound)
    }
    return model.bytes
  }

  /// Runs our command and the judge's beside each other. They only read what they share.
  private static func both(_ ours: [String], _ judges: [String], in folder: TemporaryFolder) throws
    -> (ours: ProcessResult, judged: ProcessResult)
  {
    let process = try TestProcess([try BuiltProduct.qemuImg.path] + ours, folder: folder.path)
    let judged = try ReferenceTool.qemuImg.run(judges, folder: folder.path)
    return (process.wait(), judged)
  }

  @Test func partsAreTheJudges() throws {
    var random = SeededRandom.fromEnvironment(or: 41)
    let seed = "\(random)"
    try TemporaryFolder.with { folder in
      for (size, small) in [(2_100_000, ""), (70_000, "small.")] {
        let (raw, qcow2) = (small + "raw", small + "qcow2")
        try folder.write(Self.disk(&random, size), to: raw)
        try ReferenceTool.qemuImg("convert", "-f", "raw", "-O", "qcow2", raw, qcow2, folder: folder.path)
      }
      for _ in 0..<Effort.rounds(24) {
        let (input, output) = (
          random.oneIn(2) ? "raw" : "qcow2", ["raw", "raw", "qcow2", "vdi"][random.below(4)]
        )
        let isSmall = random.oneIn(4)
        let name = isSmall ? "small.\(input)" : input
        var words = ["-f", input, "-O", output, "if=\(name)"] + Self.operands(&random, isSmall: isSmall)
        if random.oneIn(5) { words.insert("-U", at: 0) }
        if random.oneIn(8) { words.append("if=small.raw") }
        let (ours, judged) = try Self.both(
          ["dd"] + words + ["of=ours"], ["dd"] + words + ["of=judged"], in: folder)
        let command = words.joined(separator: " ") + "\n\(seed)"
        #expect(ours.status == judged.status, "\(command)")
        #expect(
          ours.stderrText.replacingOccurrences(of: "ours", with: "judged") == judged.stderrText, "\(command)")
        #expect(Files.exists(folder.file("ours")) == Files.exists(folder.file("judged")), "\(command)")
        guard Files.exists(folder.file("judged")), judged.status == 0 else { continue }
        if output == "raw" {
          #expect(
            try Files.read(folder.file("ours")) == Files.read(folder.file("judged")), "\(command)")
        } else {
          let plain = try ReferenceTool.qemuImg.run(
            ["compare", "-f", output, "-F", output, "ours", "judged"], folder: folder.path)
          #expect(plain.stdoutText == "Images are identical.\n", "\(command)")
        }
        for name in ["ours", "judged"] { try? FileManager.default.removeItem(atPath: folder.file(name)) }
      }
    }
  }

  @Test func severalDisksBecomeTheJudgesOne() throws {
    var random = SeededRandom.fromEnvironment(or: 42)
    let seed = "\(random)"
    try TemporaryFolder.with { folder in
      for round in 0..<Effort.rounds(10) {
        var names: [String] = []
        for number in 0..<2 + random.below(3) {
          let size = [0, 1, 511, 512, 65536, 300_000 + random.below(900_000), 1 << 20][random.below(7)]
          try folder.write(Self.disk(&random, size), to: "part")
          let name = "part\(number)"
          let format = random.oneIn(2) ? "raw" : "qcow2"
          // Of its own format, and found by probing.
          try ReferenceTool.qemuImg("convert", "-f", "raw", "-O", format, "part", name, folder: folder.path)
          if format == "raw" { try folder.write(Files.read(folder.file("part")), to: name) }
          names.append(name)
        }
        let output = ["raw", "qcow2", "vmdk", "vdi", "qed"][round % 5]
        let words = ["-O", output] + (random.oneIn(3) ? ["-S", "0"] : []) + names
        let (ours, judged) = try Self.both(
          ["convert"] + words + ["ours"], ["convert"] + words + ["judged"], in: folder)
        let command = words.joined(separator: " ") + "\n\(seed)"
        #expect(ours.status == judged.status, "\(command)")
        #expect(
          ours.stderrText.replacingOccurrences(of: "ours", with: "judged") == judged.stderrText, "\(command)")
        guard judged.status == 0 else { continue }
        let same = try ReferenceTool.qemuImg.run(
          ["compare", "-f", output, "-F", output, "ours", "judged"], folder: folder.path)
        #expect(same.stdoutText == "Images are identical.\n", "\(command)")
      }
    }
  }
}
