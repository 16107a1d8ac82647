import TestSupport
import Testing

/// fio, which knows again what it wrote.
@Suite(.enabled(if: MountedImage.isPossible), .serialized) struct LoadTests {
  struct Load: Sendable, CustomTestStringConvertible {
    var image: WritableImage
    var pattern: String
    var isDirect: Bool
    var testDescription: String {
      "\(image.testDescription), \(pattern), \(isDirect ? "O_DIRECT" : "buffered")"
    }
  }

  static let loads: [Load] = {
    if Effort.current == .soak {
      return (WritableImage.all + WritableImage.kinds).flatMap { image in
        ["write", "randwrite"].flatMap { pattern in
          [false, true].map { Load(image: image, pattern: pattern, isDirect: $0) }
        }
      }
    }
    return WritableImage.chosen.enumerated().flatMap { index, image in
      [
        Load(image: image, pattern: "randwrite", isDirect: index % 2 == 0),
        Load(image: image, pattern: index < 2 ? "write" : "randwrite", isDirect: index % 2 == 1),
      ]
    }
  }()

  /// Eight jobs write their own parts and verify them, while a ninth punches holes into its part. What they wrote is
  /// there for the judge, too.
  @Test(arguments: loads) func keepsWhatEightJobsWrite(_ load: Load) throws {
    let part = Effort.current == .soak ? 32 : 4
    let jobs = [
      "--name=writer", "--rw=\(load.pattern)", "--bs=16k", "--size=\(part)m", "--offset_increment=\(part)m",
      "--numjobs=8", "--verify=crc32c", "--verify_fatal=1", "--randseed=5", "--thread", "--group_reporting",
    ]
    let engine = load.isDirect ? ["--ioengine=libaio", "--iodepth=8"] : ["--ioengine=psync", "--fsync=64"]
    let puncher = [
      "--name=puncher", "--ioengine=falloc", "--rw=randtrim", "--bs=32k", "--size=\(part)m",
      "--offset=\(8 * part)m", "--verify=0", "--direct=0", "--fsync=0", "--numjobs=1",
      "--offset_increment=0", "--time_based", "--runtime=1",
    ]
    try TemporaryFolder.with { folder in
      let image = try load.image.make(9 * part << 20, in: folder)
      try load.image.mounted(image, in: folder) { mount in
        let disk = ["--filename=\(mount.file("disk.raw"))"]
        try TestProcess.run(
          ["/usr/bin/fio"] + jobs + disk + engine + ["--direct=\(load.isDirect ? 1 : 0)", "--do_verify=1"]
            + puncher + disk, folder: folder.path, timeout: 240
        ).expecting(0)
      }
      let raw = try load.image.judged(image, in: folder)
      let verifying = ["/usr/bin/fio"] + jobs + ["--filename=\(raw)", "--ioengine=psync", "--verify_only"]
      try TestProcess.run(verifying, folder: folder.path, timeout: 240).expecting(0)
      // It does look: one byte that is another one is found.
      try ReferenceTool.io(["write -P 77 \(part * 3 << 20) 1k"], on: raw, format: "raw")
      #expect(try TestProcess.run(verifying, folder: folder.path, timeout: 240).status != 0)
    }
  }
}
