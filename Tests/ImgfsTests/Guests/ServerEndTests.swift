import FormatEngine
import Foundation
import Synchronization
import TestSupport
import Testing

/// The serving process ends while its disk is being written.
@Suite(.enabled(if: MountedImage.isPossible), .serialized) struct ServerEndTests {
  /// What one writer knows to be on disk: the last number that it wrote into a block before an fsync that went well.
  private final class Synced: Sendable {
    let numbers = Guarded<[Int: UInt64]>([:])
  }

  private static let writers = 8
  private static let blocks = 256

  /// Writes numbered blocks into its own part of the disk, with an fsync now and then, until a call fails.
  private static func write(_ disk: String, _ writer: Int, _ synced: Synced, _ rounds: borrowing Atomic<Int>)
  {
    let descriptor = unsafe open(disk, O_RDWR | O_CLOEXEC)
    guard descriptor >= 0 else { return }
    defer { close(descriptor) }
    var random = SeededRandom(seed: UInt64(writer))
    var written: [Int: UInt64] = [:]
    var number: UInt64 = 0
    while true {
      number += 1
      let block = writer * blocks + random.below(blocks)
      let words = [UInt64](repeating: number << 8 | UInt64(writer), count: 512)
      let count = unsafe words.withUnsafeBytes {
        unsafe pwrite(descriptor, $0.baseAddress, 4096, off_t(block * 4096))
      }
      guard count == 4096 else { return }
      written[block] = number
      if number % 8 == 0 {
        guard fsync(descriptor) == 0 else { return }
        synced.numbers.withLock { [written] in $0 = written }
        rounds.add(1, ordering: .relaxed)
      }
    }
  }

  /// After a kill nothing is worse than a leak, and all that was synced is there.
  @Test(arguments: Effort.current == .soak ? WritableImage.all + WritableImage.kinds : WritableImage.all)
  func killedServerLosesNothingThatWasSynced(_ kind: WritableImage) throws {
    try TemporaryFolder.with { folder in
      let image = try kind.make(16 << 20, in: folder)
      let mountPoint = try folder.makeFolder("mount")
      try BuiltProduct.imgfs.run(
        kind.words(in: folder) + ["-o", "rw", "--pid-file", folder.file("pid"), image, mountPoint]
      ).expecting(0)
      defer {
        if MountedImage.isMounted(mountPoint) { _ = try? Shell.run("umount --lazy mount", in: folder) }
      }
      let server = try #require(
        pid_t(String(decoding: try Files.read(folder.file("pid")), as: UTF8.self).dropLast()))
      let synced = (0..<Self.writers).map { _ in Synced() }
      let rounds = Rounds()
      let killer = TestThread {
        _ = MountedImage.waits(30) { rounds.count.load(ordering: .relaxed) >= 200 }
        kill(server, SIGKILL)
      }
      let disk = mountPoint + "/disk.raw"
      _ = Threads.run(Self.writers) { writer in
        Self.write(disk, writer, synced[writer], rounds.count)
        return nil
      }
      killer.join()
      try BuiltProduct.imgfs.run(["--unmount", mountPoint]).expecting(0)
      try Self.expectAtMostLeaks(kind, image)
      let raw = try Files.read(try kind.judged(image, in: folder))
      var blocks = 0
      for writer in 0..<Self.writers {
        for (block, number) in synced[writer].numbers.withLock({ $0 }) {
          let word = raw[block * 4096..<block * 4096 + 8].reversed().reduce(UInt64(0)) {
            $0 << 8 | UInt64($1)
          }
          // What was written after the fsync may be there or not.
          #expect(word & 255 == UInt64(writer) && word >> 8 >= number, "block \(block)")
          blocks += 1
        }
      }
      #expect(blocks > 100)
    }
  }

  private final class Rounds: Sendable { let count = Atomic<Int>(0) }

  /// A log, or a mark that the image was not closed, is what its formats have for this; it is played back or taken away.
  static func expectAtMostLeaks(_ kind: WritableImage, _ image: String) throws {
    if ["vhdx", "parallels", "qed"].contains(kind.format) {
      _ = try ReferenceTool.qemuImg.run(["check", "-q", "-r", "all", "-f", kind.format, image])
    }
    if kind.format == "vdi" { try takeCountDown(image) }
    let verdict = try ReferenceTool.check(image, format: kind.format, passphrase: kind.passphrase)
    #expect(verdict.corruptions == 0 && verdict.checkErrors == 0, "\(verdict.text)")
    let ours = try BuiltProduct.qemuImg.run(
      ["check"] + ReferenceTool.names(image, kind.format, kind.passphrase))
    #expect([0, 3, 63].contains(ours.status), "\(ours.stdoutText)\(ours.stderrText)")
  }

  /// The header of a VDI counts blocks before entries lead to them: too many are no damage, though the judge calls them that and
  /// mends none.
  private static func takeCountDown(_ image: String) throws {
    let mended = try BuiltProduct.qemuImg.run(["check", "-r", "all", "-f", "vdi", image])
    #expect(mended.status == 0, "\(mended.stderrText)")
    for finding in mended.stderrText.split(separator: "\n") {
      let counts = finding.split { !$0.isNumber }.compactMap { Int($0) }
      #expect(
        finding.hasPrefix("ERROR: allocated blocks mismatch") && counts.count == 2 && counts[0] < counts[1],
        "\(finding)")
    }
  }

  /// Writes beside a snapshot's file and others that are closed meanwhile, says what the image says of itself, and kills the server.
  private static let killBesideASnapshot = """
    mkdir images
    truncate -s 16M raw
    echo '2048,8192' | sfdisk --quiet --no-tell-kernel raw
    "$judge" convert -f raw -O qcow2 -o lazy_refcounts=on raw images/a.qcow2
    "$judge" snapshot -c before images/a.qcow2
    if [ "$shelf" = true ]; then what=images tree=mount/a.qcow2; else what=images/a.qcow2 tree=mount; fi
    "$imgfs" -o rw,idle=1 --pid-file pid $what mount
    python3 - "$tree" images/a.qcow2 "$(cat pid)" <<'PYTHON'
    import os, signal, sys, time
    tree, image, server = sys.argv[1], sys.argv[2], int(sys.argv[3])
    def mark():
        with open(image, "rb") as file:
            return file.read(80)[79] & 1
    print("before", mark())
    disk = os.open(tree + "/disk.raw", os.O_RDWR)
    snapshot = os.open(tree + "/snapshots/before/disk.raw", os.O_RDONLY)
    partition = os.open(tree + "/partitions/1.raw", os.O_RDONLY)
    inside = os.open(tree + "/snapshots/before/partitions/1.raw", os.O_RDONLY)
    os.pwrite(disk, b"d" * 300000, 8 << 20)
    os.pwrite(disk, b"p" * 100000, 1 << 20)
    os.fsync(disk)
    print("written", mark())
    for file in [snapshot, inside, partition]:
        os.read(file, 1)
        os.close(file)
    print("closed", mark())
    time.sleep(2.5)
    print("idle", mark())
    os.pwrite(disk, b"e" * 300000, 10 << 20)
    os.fsync(disk)
    print("again", mark(), flush=True)
    os.kill(server, signal.SIGKILL)
    PYTHON
    "$imgfs" --unmount mount
    """

  /// Beside a writer a snapshot's file is closed, and a partition's; alone, or on a shelf that closes what is idle. The image goes
  /// on saying that it is in use, and so a kill loses nothing (cloud-hypervisor's b68e7f3d9 and 53ee9ebb7).
  @Test(arguments: [false, true]) func closedSnapshotTakesNoMarkOff(isOnAShelf: Bool) throws {
    try TemporaryFolder.with { folder in
      let mountPoint = try folder.makeFolder("mount")
      defer {
        if MountedImage.isMounted(mountPoint) { _ = try? Shell.run("umount --lazy mount", in: folder) }
      }
      let output = try Shell.run(
        Self.killBesideASnapshot,
        [
          "imgfs": try BuiltProduct.imgfs.path, "judge": ReferenceTool.qemuImg.path,
          "shelf": "\(isOnAShelf)",
        ], in: folder)
      #expect(output == "before 0\nwritten 1\nclosed 1\nidle 1\nagain 1\n")
      let image = folder.file("images/a.qcow2")
      // The mark says that counts may be behind: that is what a repair is for.
      let copy = try folder.write(try Files.read(image), to: "copy.qcow2")
      try BuiltProduct.qemuImg.run(["check", "-q", "-r", "all", copy]).expecting(0)
      try ReferenceTool.qemuImg.run(["check", "-q", "-r", "all", image]).expecting(0)
      let kind = WritableImage(format: "qcow2")
      for file in [image, copy] {
        try kind.expectSound(file)
        let raw = try Files.read(try kind.judged(file, in: folder))
        let written: [(start: Int, count: Int, byte: UInt8)] = [
          (8 << 20, 300_000, UInt8(ascii: "d")), (1 << 20, 100_000, UInt8(ascii: "p")),
          (10 << 20, 300_000, UInt8(ascii: "e")),
        ]
        for (start, count, byte) in written {
          #expect(raw[start..<start + count].allSatisfy { $0 == byte }, "\(start)")
        }
      }
    }
  }

  /// A signal that asks for the end lets the kernel write what it has kept.
  @Test(arguments: WritableImage.chosen) func endedServerWritesAllFirst(_ kind: WritableImage) throws {
    try TemporaryFolder.with { folder in
      let image = try kind.make(64 << 20, in: folder)
      let mountPoint = try folder.makeFolder("mount")
      defer {
        if MountedImage.isMounted(mountPoint) { _ = try? Shell.run("umount --lazy mount", in: folder) }
      }
      try Shell.run(
        """
        head -c 60M /dev/urandom >source
        "$imgfs" -F "$format" -o rw --pid-file pid "$image" mount
        server=$(cat pid)
        # Open until after the end: a close would have the kernel write.
        python3 - $server <<'PYTHON'
        import os, signal, sys, time
        server = int(sys.argv[1])
        file = os.open("mount/disk.raw", os.O_RDWR)
        os.write(file, open("source", "rb").read())
        os.kill(server, signal.SIGTERM)
        while os.path.exists(f"/proc/{server}/exe"):
            time.sleep(0.02)
        PYTHON
        """, ["imgfs": try BuiltProduct.imgfs.path, "image": image, "format": kind.format], in: folder)
      #expect(!MountedImage.isMounted(mountPoint))
      try kind.expectSound(image)
      let raw = try kind.judged(image, in: folder)
      try Shell.run("cmp -n 62914560 source \"$raw\"", ["raw": raw], in: folder)
    }
  }

  /// A snapshot that is being taken when the signal comes is taken as a whole, and whoever asked for it is told.
  @Test func endedServerFinishesASnapshotFirst() throws {
    let kind = WritableImage(format: "qcow2", options: ["cluster_size=512", "preallocation=metadata"])
    try TemporaryFolder.with { folder in
      let image = try kind.make(32 << 20, in: folder)
      for options in ["", "-s"] {
        let mountPoint = try folder.makeFolder("mount")
        defer {
          if MountedImage.isMounted(mountPoint) { _ = try? Shell.run("umount --lazy mount", in: folder) }
        }
        let output = try Shell.run(
          """
          "$imgfs" $options -o rw --pid-file pid "$image" mount
          server=$(cat pid)
          mkdir "mount/snapshots/with$options" & mkdir=$!
          sleep 0.03
          kill -TERM $server
          wait $mkdir && echo made
          while [ -e /proc/$server/exe ]; do sleep 0.02; done
          """, ["imgfs": try BuiltProduct.imgfs.path, "image": image, "options": options], in: folder)
        #expect(output == "made\n")
        #expect(!MountedImage.isMounted(mountPoint))
        #expect(try ReferenceTool.qemuImg("snapshot", "-l", image).stdoutText.contains("with\(options) "))
      }
      try kind.expectSound(image)
    }
  }

  /// A loop device that holds the disk keeps the mount; nothing is torn away.
  @Test(.enabled(if: MountedImage.canLoopMount)) func staysWhileALoopDeviceHoldsIt() throws {
    let kind = WritableImage(format: "qcow2")
    try TemporaryFolder.with { folder in
      let image = try kind.make(16 << 20, in: folder)
      try kind.mounted(image, in: folder) { mount in
        let output = try Shell.run(
          """
          loop=$(losetup -f --show "$mount/disk.raw")
          trap 'losetup -d $loop 2>/dev/null || true' EXIT
          "$imgfs" --unmount "$mount" || echo stays
          dd if=/dev/urandom of=$loop bs=1M count=8 conv=fsync status=none
          cmp -n 8388608 $loop "$mount/disk.raw"
          """, ["imgfs": try BuiltProduct.imgfs.path, "mount": mount.path], in: folder)
        #expect(output.contains("Device or resource busy") && output.contains("stays"))
      }
    }
  }
}
