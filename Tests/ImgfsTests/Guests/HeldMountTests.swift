import Foundation
import TestSupport
import Testing

/// A mount that is held and used for long grows neither in memory nor in descriptors.
@Suite(.enabled(if: MountedImage.isPossible), .serialized) struct HeldMountTests {
  /// Hours by IMGFS_TEST_SECONDS.
  private static let seconds: Int =
    ProcessInfo.processInfo.environment["IMGFS_TEST_SECONDS"].flatMap(Int.init)
    ?? (Effort.current == .soak ? 300 : 15)

  /// What the process has at one moment.
  private struct Sample {
    var memory: Int
    var descriptors: Int

    init(_ process: pid_t) throws {
      let status = String(decoding: try Files.read("/proc/\(process)/status"), as: UTF8.self)
      let line = status.split(separator: "\n").first { $0.hasPrefix("RssAnon:") } ?? ""
      memory = line.split(whereSeparator: { !$0.isNumber }).first.flatMap { Int($0) } ?? 0
      descriptors = try FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/fd").count
    }
  }

  /// Writes with fsync, reads, discards, snapshots that come and go, partitions, looks at every file of the tree.
  @Test(arguments: [[], ["--overlay", "tmp"]]) func useDoesNotMakeItGrow(_ options: [String]) throws {
    try TemporaryFolder.with { folder in
      let image = folder.file("image.qcow2")
      try ReferenceTool.create(image, format: "qcow2", size: 64 << 20, options: ["cluster_size=16k"])
      let words = options.isEmpty ? ["-o", "rw"] : options
      try MountedImage.with(image, options: words, in: folder, timeout: Double(Self.seconds) + 120) { mount in
        let load = try TestProcess(
          ["/bin/bash", "-euc", Self.load],
          environment: ["mount": mount.path, "seconds": "\(Self.seconds)", "TMPDIR": folder.path],
          folder: folder.path)
        var samples: [Sample] = []
        while load.isRunning {
          samples.append(try Sample(mount.process))
          usleep(250_000)
        }
        try load.wait(timeout: 60).expecting(0)
        let third = samples.count / 3
        try #require(third > 5)
        let (middle, last) = (samples[third..<2 * third], samples[(2 * third)...])
        // A few MiB come and go with what is asked at the same time.
        let memory = [middle, last].map { $0.map(\.memory).sorted()[$0.count / 2] }
        #expect(memory[1] <= memory[0] + 6 * 1024, "KiB: \(memory)")
        let descriptors = [middle, last].map { $0.map(\.descriptors).max() ?? 0 }
        #expect(descriptors[1] <= descriptors[0] + 4, "\(descriptors)")
      }
    }
    Tally.add("seconds of a held mount", Self.seconds)
  }

  private static let load = """
    cd "$mount"
    end=$(($(date +%s) + seconds))
    fio --name=load --filename="$mount/disk.raw" --rw=randrw --rwmixread=50 --bsrange=4k-64k --size=12m --offset=2m \\
      --offset_increment=12m --numjobs=4 --thread --fsync=16 --time_based --runtime="$seconds" --output="$TMPDIR/fio" &
    count=0
    while [ "$(date +%s)" -lt $end ]; do
      printf 'label: dos\\n2048,%s,83\\n' $((2000 + count % 7)) | sfdisk -q disk.raw >/dev/null 2>&1 || true
      if [ -d snapshots ] && mkdir snapshots/s$count 2>/dev/null; then head -c 1M snapshots/s$count/disk.raw >/dev/null; rmdir snapshots/s$count; fi
      find . -type f -exec head -c 4096 {} + >/dev/null
      fallocate --punch-hole --offset 52M --length 1M disk.raw
      count=$((count + 1))
    done
    wait
    """
}
