import TestSupport
import Testing

@testable import FormatEngine

/// Another size: what stays reads the same, what is new reads as zeros, and a power cut leaves one of both.
@Suite struct Qcow2ResizerTests {
  private func make(_ options: [String], _ size: Int, in folder: TemporaryFolder, backing: String? = nil)
    throws
  {
    let lower = backing.map { ["-b", $0, "-F", "raw"] } ?? []
    try ReferenceTool.qemuImg.run(
      ["create", "-q", "-f", "qcow2", "-o", (["cluster_size=64k"] + options).joined(separator: ",")] + lower
        + ["image", "\(size)"], folder: folder.path
    ).expecting(0)
  }

  private func open(_ folder: TemporaryFolder) throws -> ImageChain {
    var options = OpenOptions(format: "qcow2", access: .readWrite)
    options.cache = .unflushed
    return try ImageOpener.open(folder.file("image"), options)
  }

  private func expectSound(_ folder: TemporaryFolder, _ content: [UInt8], _ story: Comment) throws {
    let verdict = try ReferenceTool.check("image", folder: folder.path)
    #expect(verdict.corruptions == 0 && verdict.leaks == 0 && verdict.checkErrors == 0, story)
    #expect(try ReferenceTool.content(of: "image", format: "qcow2", in: folder) == content, story)
  }

  /// Every feature, up and down, with every preallocation.
  @Test(arguments: [
    [], ["cluster_size=512"], ["extended_l2=on"], ["compat=0.10"], ["refcount_bits=1"],
    ["lazy_refcounts=on", "compression_type=zstd"], ["data_file=data"],
    ["data_file=data", "data_file_raw=on"],
  ])
  func sizesGoUpAndDown(_ options: [String]) throws {
    var random = SeededRandom.fromEnvironment(or: 321)
    try TemporaryFolder.with { folder in
      let hasData = options.contains("data_file=data")
      let size = 1 << 20
      let backing = hasData || options == ["compat=0.10"] ? nil : "below"
      if let backing { try folder.write(random.fill(2 << 20), to: backing) }
      try make(options, size, in: folder, backing: backing)
      try ReferenceTool.io(
        (hasData ? [] : ["write -q -c -P 3 192k 64k"])
          + ["write -q -P 1 0 100k", "write -q -P 2 500k 524k", "write -q -z 300k 64k"], on: "image",
        format: "qcow2", folder: folder.path)
      var content = try ReferenceTool.content(of: "image", format: "qcow2", in: folder)
      let before = try Qcow2Header.parse(of: folder.file("image"))
      let modes: [Preallocation] = [.off, .metadata, .falloc, .full]
      for round in 0..<Effort.rounds(4) {
        let new = 512 * (1 + random.below(5000))
        let mode = new > content.count ? modes[random.below(4)] : .off
        let story: Comment = "round \(round), \(random): \(options) from \(content.count) to \(new), \(mode)"
        do {
          let chain = try open(folder)
          try chain.resize(to: UInt64(new), preallocation: mode)
          try chain.close()
        }
        content = Array(content.prefix(new)) + [UInt8](repeating: 0, count: max(0, new - content.count))
        try expectSound(folder, content, story)
        if hasData { #expect(try Files.read(folder.file("data")).count == new, story) }
      }
      let after = try Qcow2Header.parse(of: folder.file("image"))
      #expect(after.incompatibleFeatures == before.incompatibleFeatures)
      #expect(after.compatibleFeatures == before.compatibleFeatures)
      #expect(after.autoclearFeatures == before.autoclearFeatures)
      #expect(after.compressionType == before.compressionType && after.refcountOrder == before.refcountOrder)
    }
  }

  /// What a disk held past a smaller size does not come back with a larger one, inside the last cluster neither.
  @Test func whatWasCutOffStaysGone() throws {
    try TemporaryFolder.with { folder in
      try make([], 1 << 20, in: folder)
      try ReferenceTool.io(["write -q -P 1 0 1M"], on: "image", format: "qcow2", folder: folder.path)
      let chain = try open(folder)
      try chain.resize(to: 100 * 1024)
      try chain.resize(to: 1 << 20)
      try chain.close()
      let ones = [UInt8](repeating: 1, count: 100 * 1024)
      try expectSound(folder, ones + [UInt8](repeating: 0, count: 924 * 1024), "")
    }
  }

  /// A data file that is longer than the disk holds more than the disk: that stays.
  @Test func aLongerDataFileKeepsItsEnd() throws {
    try TemporaryFolder.with { folder in
      try make(["data_file=data", "data_file_raw=on"], 1 << 20, in: folder)
      try ReferenceTool.io(["write -q -P 1 0 1M"], on: "image", format: "qcow2", folder: folder.path)
      let end = [UInt8](repeating: 9, count: 1 << 20)
      try Files.write(
        try Files.read(folder.file("data")) + [UInt8](repeating: 0, count: 1 << 20) + end,
        to: folder.file("data"))
      let chain = try open(folder)
      try chain.resize(to: 512 * 1024)
      try chain.resize(to: 2 << 20, preallocation: .metadata)
      try chain.close()
      let half = [UInt8](repeating: 1, count: 512 * 1024)
      let content = half + [UInt8](repeating: 0, count: (2 << 20) - half.count)
      try expectSound(folder, content, "")
      #expect(try Files.read(folder.file("data")) == content + end)
    }
  }

  /// A snapshot keeps its size and its content, also where the disk's last cluster is one of its own.
  @Test func snapshotsKeepWhatTheDiskLoses() throws {
    try TemporaryFolder.with { folder in
      try make([], 1 << 20, in: folder)
      try ReferenceTool.io(["write -q -P 1 0 1M"], on: "image", format: "qcow2", folder: folder.path)
      try ReferenceTool.qemuImg("snapshot", "-c", "s", "image", folder: folder.path)
      let chain = try open(folder)
      for size in [100 * 1024, 700 * 1024, 8 << 20] as [UInt64] { try chain.resize(to: size) }
      try (chain.top as? any Emptyable)?.removeContent(progress: .none)
      try chain.close()
      try expectSound(folder, [UInt8](repeating: 0, count: 8 << 20), "")
      try ReferenceTool.qemuImg("convert", "-l", "s", "-O", "raw", "image", "s.raw", folder: folder.path)
      #expect(
        try Files.read(folder.file("s.raw")).prefix(1 << 20) == [UInt8](repeating: 1, count: 1 << 20)[...])
    }
  }

  /// The bitmaps fit the disk again; what they said of the bytes that stay is still there.
  @Test func bitmapsGoWithTheDisk() throws {
    try TemporaryFolder.with { folder in
      try make([], 4 << 20, in: folder)
      try ReferenceTool.qemuImg("bitmap", "--add", "-g", "512", "image", "b", folder: folder.path)
      try ReferenceTool.io(
        ["write -q 64k 1k", "write -q 3M 64k"], on: "image", format: "qcow2", folder: folder.path)
      let chain = try open(folder)
      for size in [1 << 20, 70 << 20, 2 << 20] as [UInt64] {
        try chain.resize(to: size)
        let runs = try dirtyRuns(of: chain)
        #expect(runs == [65536..<66560], "\(size)")
      }
      try chain.close()
      let text = try ReferenceTool.qemuImg("info", "image", folder: folder.path).stdoutText
      #expect(text.contains("name: b") && !text.contains("in-use"))
      let verdict = try ReferenceTool.check("image", folder: folder.path)
      #expect(verdict.corruptions + verdict.leaks == 0, "\(verdict.text)")
    }
  }

  @Test func anEmptiedImageIsSmall() throws {
    try TemporaryFolder.with { folder in
      try make(["cluster_size=512"], 4 << 20, in: folder)
      try ReferenceTool.io(["write -q -P 1 0 4M"], on: "image", format: "qcow2", folder: folder.path)
      let chain = try open(folder)
      try (chain.top as? any Emptyable)?.removeContent(progress: .none)
      try chain.close()
      try expectSound(folder, [UInt8](repeating: 0, count: 4 << 20), "")
      #expect(try Files.read(folder.file("image")).count < 64 * 1024)
    }
  }

  private func dirtyRuns(of chain: ImageChain) throws -> [Range<UInt64>] {
    let keeper = try #require(chain.top as? any BitmapKeeping)
    var runs: [Range<UInt64>] = []
    try keeper.forEachDirtyRun(of: "b") { runs.append($0) }
    return runs
  }

  enum Change: CaseIterable { case grow, shrink, empty }

  private func perform(_ change: Change, on chain: ImageChain) throws(EngineError) {
    switch change {
    case .grow: try chain.resize(to: 500 * 1024, preallocation: .metadata)
    case .shrink: try chain.resize(to: 50 * 1024)
    case .empty: try (chain.top as? any Emptyable)?.removeContent(progress: .none)
    }
    try chain.close()
  }

  /// What `perform` makes of 200 KiB of ones.
  private func outcome(_ change: Change, _ old: [UInt8]) -> [UInt8] {
    switch change {
    case .grow: old + [UInt8](repeating: 0, count: 500 * 1024 - old.count)
    case .shrink: Array(old.prefix(50 * 1024))
    case .empty: [UInt8](repeating: 0, count: old.count)
    }
  }

  /// Whatever call fails, the image is what it was or what it is to be, and stays sound.
  @Test(arguments: [Change.grow, .shrink, .empty]) func everyCallFailsOnce(_ change: Change) throws {
    try TemporaryFolder.with { folder in
      try make(["cluster_size=4k"], 200 * 1024, in: folder)
      try ReferenceTool.io(["write -q -P 1 0 200k"], on: "image", format: "qcow2", folder: folder.path)
      let bytes = try Files.read(folder.file("image"))
      let old = [UInt8](repeating: 1, count: 200 * 1024)
      var failing = 0
      while true {
        let store = MemoryStore(bytes)
        let fault = FaultStore(store)
        let hasFailed: Bool
        do {
          let chain = try ImageChain.over(fault, format: Qcow2Format.self, access: .readWrite)
          fault.arm(failing: failing)
          hasFailed = (try? perform(change, on: chain)) == nil
        }
        let chain = try ImageChain.over(store, format: Qcow2Format.self)
        let content = try chain.readAll()
        #expect(content == outcome(change, old) || (hasFailed && content == old), "call \(failing)")
        let report = try (chain.top as? any Checkable)?.check(progress: .none)
        #expect(report?.corruptions == 0, "call \(failing): \(report?.findings.first ?? "")")
        if !hasFailed { break }
        failing += 3
      }
      #expect(failing > 20)
    }
  }

  /// Each state that a power cut leaves has the old size or the new one, and reads as it did or as it is to.
  @Test func aPowerCutLeavesTheOldOrTheNew() throws {
    var random = SeededRandom.fromEnvironment(or: 322)
    for options in [["cluster_size=512"], ["cluster_size=4k", "extended_l2=off"]] {
      for change in Change.allCases {
        try TemporaryFolder.with { folder in
          try make(options, 200 * 1024, in: folder)
          try ReferenceTool.io(["write -q -P 1 0 200k"], on: "image", format: "qcow2", folder: folder.path)
          let store = CrashStore(try Files.read(folder.file("image")))
          do {
            let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
            try perform(change, on: chain)
          }
          let old = [UInt8](repeating: 1, count: 200 * 1024)
          let new = outcome(change, old)
          try store.forEachCrashState(
            cuts: stride(from: 0, through: store.eventCount, by: 3), random: &random, randomCount: 1
          ) { state in
            let chain = try ImageChain.over(MemoryStore(state.bytes), format: Qcow2Format.self)
            let story: Comment = "\(change), \(options), cut \(state.cut), \(state.story)"
            let content = try chain.readAll()
            #expect(content == old || content == new, story)
            let report = try (chain.top as? any Checkable)?.check(progress: .none)
            #expect(report?.corruptions == 0, story)
          }
          #expect(try ImageChain.over(MemoryStore(store.content), format: Qcow2Format.self).readAll() == new)
        }
      }
    }
  }

  /// Any call of a growth fails while a bitmap is enabled: the session has the size that the file has, and what is
  /// written afterwards is recorded, or the bitmap says that it does not know.
  @Test func failedGrowthGoesOnRecording() throws {
    let good = try TemporaryFolder.with { folder in
      try make([], 4 << 20, in: folder)
      try ReferenceTool.qemuImg("bitmap", "--add", "-g", "65536", "image", "b", folder: folder.path)
      return try Files.read(folder.file("image"))
    }
    func grow(failing number: Int?, isForEver: Bool) throws -> Int {
      let moment = "call \(number ?? -1), \(isForEver)"
      let memory = MemoryStore(good)
      let store = FaultStore(memory)
      let chain = try ImageChain.over(store, format: Qcow2Format.self, access: .readWrite)
      try chain.writeBytes([1], at: 65536)
      store.arm(failing: number, forEver: isForEver, of: [.read, .write, .resize, .flush])
      try? chain.resize(to: 600 << 20)
      let calls = store.callCount
      store.arm(failing: nil)
      var isRefused = false
      do throws(EngineError) {
        try chain.writeBytes([2], at: 3 << 20)
        try chain.close()
      } catch { isRefused = true }
      let reopened = try ImageChain.over(MemoryStore(memory.snapshot), format: Qcow2Format.self)
      if !isRefused { #expect(reopened.virtualSize == chain.virtualSize, "\(moment)") }
      let record = try #require(try reopened.bitmapLayer.bitmaps().first)
      if !record.isInconsistent {
        let runs = try reopened.dirtyRuns("b")
        #expect(runs.contains(65536..<131_072), "\(moment)")
        #expect(isRefused || runs.contains(3 << 20..<(3 << 20) + 65536), "\(moment)")
      }
      let report = try #require(reopened.top as? any Checkable).check(progress: .none)
      #expect(report.corruptions == 0, "\(moment): \(report.findings.prefix(3))")
      return calls
    }
    let calls = try grow(failing: nil, isForEver: false)
    for number in stride(from: 0, to: calls, by: max(1, calls / Effort.rounds(12))) {
      _ = try grow(failing: number, isForEver: false)
      _ = try grow(failing: number, isForEver: true)
    }
  }
}

extension Qcow2Header {
  fileprivate static func parse(of path: String) throws -> Qcow2Header {
    try Qcow2Prologue.read(from: MemoryStore(Array(try Files.read(path).prefix(2 << 20)))).header
  }
}
