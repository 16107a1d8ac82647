import TestSupport

/// Images that the judge makes for mount tests.
enum GuestImages {
  /// A chain of two files with snapshots in both: 24 MiB, stored, zero and missing clusters mixed.
  static func chain(in folder: TemporaryFolder) throws -> (top: String, base: String) {
    let base = folder.file("base.qcow2")
    let top = folder.file("top.qcow2")
    try ReferenceTool.qemuImg("create", "-f", "qcow2", base, "24M")
    try ReferenceTool.io(
      ["write -P 1 0 3M", "write -P 2 5M 700k", "write -P 3 20M 4M"], on: base, format: "qcow2")
    try ReferenceTool.qemuImg("snapshot", "-c", "first", base)
    try ReferenceTool.io(["write -P 4 1M 1M", "write -z 20M 1M"], on: base, format: "qcow2")
    try ReferenceTool.qemuImg("create", "-f", "qcow2", "-b", base, "-F", "qcow2", top)
    try ReferenceTool.io(["write -P 5 2M 100k", "write -P 6 10M 2M"], on: top, format: "qcow2")
    try ReferenceTool.qemuImg("snapshot", "-c", "before", top)
    try ReferenceTool.io(["write -P 7 2M 3M", "write -z 10M 1M"], on: top, format: "qcow2")
    try ReferenceTool.qemuImg("snapshot", "-c", "after", top)
    try ReferenceTool.io(["write -P 8 0 64k"], on: top, format: "qcow2")
    return (top, base)
  }

  /// What the judge reads of an image, or of one of its snapshots, as a raw file.
  static func raw(_ image: String, snapshot: String? = nil, in folder: TemporaryFolder) throws -> String {
    let target = folder.file("judged-\(snapshot ?? "disk").raw")
    let choice = snapshot.map { ["-l", "snapshot.name=\($0)"] } ?? []
    try ReferenceTool.qemuImg.run(["convert", "-O", "raw"] + choice + [image, target]).expecting(0)
    return target
  }

  /// Random bytes with holes between, the same for the same seed, as a raw file.
  static func scattered(_ name: String, byteCount: Int, seed: UInt64, in folder: TemporaryFolder) throws
    -> String
  {
    let path = try folder.write([], to: name)
    try TestProcess.run(["/usr/bin/truncate", "-s", String(byteCount), path]).expecting(0)
    var random = SeededRandom(seed: seed)
    var commands: [String] = []
    for _ in 0..<40 {
      let start = random.below(byteCount / 512) * 512
      let length = min((1 + random.below(600)) * 512, byteCount - start)
      commands.append("write -P \(1 + random.below(255)) \(start) \(length)")
    }
    try ReferenceTool.io(commands, on: path, format: "raw")
    return path
  }

  static func expectSame(_ one: String, _ other: String) throws {
    try TestProcess.run(["/usr/bin/cmp", one, other]).expecting(0)
  }
}
