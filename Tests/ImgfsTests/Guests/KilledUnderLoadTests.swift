import Foundation
import TestSupport
import Testing

/// kill -9 of imgfs while fio writes: what fio was told to be on disk is there.
@Suite(.enabled(if: MountedImage.isPossible), .serialized) struct KilledUnderLoadTests {
  /// One of them in a run of all tests, a hundred in a long one; each has its own seed.
  struct Round: Sendable, CustomTestStringConvertible {
    var number: Int
    var kind: WritableImage
    var testDescription: String { "round \(number): \(kind.testDescription)" }

    static let all: [Round] = {
      let kinds = Effort.current == .soak ? WritableImage.all + WritableImage.kinds : WritableImage.all
      return (0..<(Effort.current == .soak ? 100 : kinds.count)).map {
        Round(number: $0, kind: kinds[$0 % kinds.count])
      }
    }()
  }

  /// Jobs, each write of which waits for the disk (O_SYNC). When their writes fail they leave what they know to be
  /// written, and with that fio verifies what the judge reads. One write at a time for each: of several at a time fio
  /// verifies some that it was told had failed. And once over the disk at most: of a second time fio does not know where
  /// it ended.
  @Test(arguments: Round.all) func whatFioSyncedIsThere(_ round: Round) throws {
    var random = SeededRandom.fromEnvironment(or: 9000 + UInt64(round.number))
    let seed = "\(random)"
    let size = 256
    let count = [4, 16][random.below(2)]
    let jobs =
      "--name=load --ioengine=psync --rw=randwrite --bs=\([4, 8, 16][random.below(3)])k --size=\(size / count)m"
      + " --offset_increment=\(size / count)m --numjobs=\(count) --thread --verify=crc32c --verify_fatal=1"
      + " --randseed=\(1 + random.below(1 << 30))"
    try TemporaryFolder.with { folder in
      let image = try round.kind.make(size << 20, in: folder)
      let mountPoint = try folder.makeFolder("mount")
      defer {
        if MountedImage.isMounted(mountPoint) { _ = try? Shell.run("umount --lazy mount", in: folder) }
      }
      try BuiltProduct.imgfs.run(
        try round.kind.words(in: folder) + ["-o", "rw", "--pid-file", folder.file("pid"), image, mountPoint]
      ).expecting(0)
      try Shell.run(
        """
        # From the first writes on: they make the image's files longer.
        (
          size=$(du --total image*)
          for attempt in $(seq 600); do [ "$(du --total image*)" = "$size" ] || break; sleep 0.05; done
          sleep "$delay"
          kill -KILL "$(cat pid)"
        ) &
        if fio $jobs --filename=mount/disk.raw --direct=1 --sync=1 --do_verify=0 --verify_state_save=1 >fio.out 2>&1
        then exit 1; fi
        wait
        ls local-load-*-verify.state >/dev/null
        """,
        ["delay": "0.\(200 + random.below(700))", "jobs": jobs], in: folder)
      try BuiltProduct.imgfs.run(["--unmount", mountPoint]).expecting(0)
      try ServerEndTests.expectAtMostLeaks(round.kind, image)
      let raw = try round.kind.judged(image, in: folder)
      let verifying = "fio $jobs --filename=\"$raw\" --verify_state_load=1 --verify_only"
      let output = try Shell.run(verifying, ["jobs": jobs, "raw": raw], in: folder)
      #expect(output.contains("READ: "), "nothing was synced before the kill, \(seed)")
      // It does look: bytes that are others are found.
      try Shell.run(
        "head -c \"$size\" /dev/zero | tr '\\\\0' x >other; ! " + verifying,
        ["jobs": jobs, "raw": "other", "size": "\(size)M"],
        in: folder)
    }
    Tally.add("kills under load", 1)
  }
}
