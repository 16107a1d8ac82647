import FormatEngine
import Glibc
import TestSupport
import Testing

/// The tools that the other tests rely on do what they promise.
@Suite struct TestSupportTests {
  /// Files in /proc have no size, and come a page at a time.
  @Test func readsFilesOfProcToTheirEnd() throws {
    let maps = String(decoding: try Files.read("/proc/self/maps"), as: UTF8.self)
    #expect(maps.utf8.count > 8192 && maps.contains("[stack]"))
  }

  @Test func randomComesAgainWithTheSameSeed() {
    var one = SeededRandom(seed: 7)
    var two = SeededRandom(seed: 7)
    #expect(one.bytes(1001) == two.bytes(1001))
    #expect(one.description.contains("IMGFS_TEST_SEED=7"))
    var other = SeededRandom(seed: 8)
    #expect(other.bytes(16) != two.bytes(16))
  }

  @Test func faultStoreFailsTheChosenCallOnce() throws {
    let store = FaultStore(MemoryStore([1, 2, 3]))
    store.arm(failing: 1)
    #expect(try store.bytes(at: 0, count: 1) == [1])
    #expect(throws: EngineError.self) { try store.bytes(at: 0, count: 1) }
    #expect(try store.bytes(at: 2, count: 1) == [3])
    #expect(store.callCount == 3)
  }

  @Test func faultStoreFailsForEverAndOnlyChosenKinds() throws {
    let store = FaultStore(MemoryStore([1, 2, 3]))
    store.arm(failing: 0, forEver: true, of: [.write])
    #expect(try store.bytes(at: 0, count: 1) == [1])
    for _ in 0..<3 { #expect(throws: EngineError.self) { try store.write(bytes: [9], at: 0) } }
  }

  @Test func crashStoreKeepsFlushedBytesInEveryState() throws {
    let store = CrashStore([UInt8](repeating: 0, count: 8192))
    try store.write(bytes: [UInt8](repeating: 1, count: 4096), at: 0)
    try store.flush()
    try store.write(bytes: [UInt8](repeating: 2, count: 4096), at: 4096)
    var random = SeededRandom(seed: 1)
    var seen: Set<[UInt8]> = []
    store.forEachCrashState(cuts: [3], random: &random, randomCount: 400) { state in
      #expect(state.bytes[..<4096].holdsOnly(1))
      #expect(state.bytes[4096...].allSatisfy { $0 == 0 || $0 == 2 })
      seen.insert(state.bytes)
    }
    #expect(seen.count > 10, "torn states are among them")
    #expect(store.content[5000] == 2)
  }

  @Test func crashStoreMayLoseWhatIsNotFlushed() throws {
    let store = CrashStore()
    try store.write(bytes: [1], at: 0)
    try store.write(bytes: [2], at: 1)
    var random = SeededRandom(seed: 1)
    var states: Set<[UInt8]> = []
    store.forEachCrashState(cuts: 0...2, random: &random) { states.insert($0.bytes) }
    #expect(states.isSuperset(of: [[], [1], [1, 2], [0, 2]]))
  }

  @Test func processGivesOutputAndStatus() throws {
    let result = try TestProcess.run(
      ["/bin/sh", "-c", "echo out; echo err >&2; echo $ADDED; pwd; exit 3"], environment: ["ADDED": "x"],
      folder: "/usr")
    #expect(result.status == 3)
    #expect(result.stdoutText == "out\nx\n/usr\n")
    #expect(result.stderrText == "err\n")
    #expect(throws: TestFailure.self) { try result.expecting(0) }
  }

  @Test func processIsEndedAtItsTimeLimit() throws {
    let result = try TestProcess.run(["/bin/sleep", "50"], timeout: 0.1)
    #expect(result.timedOut)
    #expect(result.status == 128 + 9)
  }

  @Test func temporaryFolderIsRemovedAlsoAfterAFailure() throws {
    var path = ""
    #expect(throws: TestFailure.self) {
      try TemporaryFolder.with { folder in
        path = folder.path
        try folder.write([1, 2], to: "file")
        #expect(try Files.read(folder.file("file")) == [1, 2])
        throw TestFailure("on purpose")
      }
    }
    #expect(!path.isEmpty && !Files.exists(path))
  }

  @Test func judgeIsInstalled() throws {
    #expect(try ReferenceTool.qemuImg("--version").stdoutText.hasPrefix("qemu-img version"))
    #expect(ReferenceTool.qemuIO.isInstalled)
  }

  @Test func modelAllowsDiscardedBlocksToReadAsBeforeOrZerosOrBelow() {
    var model = ModelDisk([UInt8](repeating: 5, count: 2048))
    let below = ModelDisk([UInt8](repeating: 7, count: 1024))
    var now = [UInt8](repeating: 0, count: 512) + [UInt8](repeating: 5, count: 512)
    #expect(model.discard(at: 0, reading: now, below: below) == nil)
    now = [UInt8](repeating: 7, count: 512)
    #expect(model.discard(at: 512, reading: now, below: below) == nil)
    #expect(model.discard(at: 1024, reading: now, below: below) == 1024)
  }

  @Test(.enabled(if: Samples.areHere)) func sampleTableIsRead() {
    let rows = Samples.expectations(["raw", "qcow2"])
    #expect(rows.map(\.name).sorted() == ["ext2.qcow2", "grub_mbr.raw"])
  }
}
