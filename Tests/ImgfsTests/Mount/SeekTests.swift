import Foundation
import TestSupport
import Testing

@Suite(.enabled(if: MountedImage.isPossible), .serialized)
struct SeekTests {
  private static let seekData: CInt = 3
  private static let seekHole: CInt = 4

  /// Ranges of data by SEEK_DATA and SEEK_HOLE.
  private func data(of path: String) throws -> [Range<Int>] {
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw TestFailure("Could not open '\(path)'") }
    defer { close(descriptor) }
    var ranges: [Range<Int>] = []
    var position = 0
    while true {
      let start = lseek(descriptor, position, Self.seekData)
      guard start >= 0 else {
        #expect(errno == ENXIO)
        return ranges
      }
      let end = lseek(descriptor, start, Self.seekHole)
      guard end > start else { throw TestFailure("No hole after \(start): \(end)") }
      ranges.append(start..<end)
      position = end
    }
  }

  private func judged(_ image: String, _ format: String) throws -> [Range<Int>] {
    var ranges: [Range<Int>] = []
    for entry in try ReferenceTool.map(image, format: format) where entry.isData && !entry.isZero {
      let range = Int(entry.start)..<Int(entry.start + entry.length)
      if let last = ranges.last, last.upperBound == range.lowerBound {
        ranges[ranges.count - 1] = last.lowerBound..<range.upperBound
      } else {
        ranges.append(range)
      }
    }
    return ranges
  }

  @Test(arguments: ["", "cluster_size=4k", "extended_l2=on,cluster_size=128k", "compression_type=zstd"])
  func agreesWithTheJudgesMap(_ options: String) throws {
    try TemporaryFolder.with { folder in
      let raw = try GuestImages.scattered("guest.raw", byteCount: 30 << 20, seed: 3, in: folder)
      let image = folder.file("guest.qcow2")
      try ReferenceTool.qemuImg.run(
        ["convert", "-O", "qcow2"] + (options.isEmpty ? [] : ["-o", options])
          + (options.contains("compression") ? ["-c"] : []) + [raw, image]
      ).expecting(0)
      let expected = try judged(image, "qcow2")
      #expect(expected.count > 3)
      try MountedImage.with(image, in: folder) { mount in
        let found = try data(of: mount.file("disk.raw"))
        #expect(found == expected)
      }
    }
  }

  @Test func findsHolesThroughAChain() throws {
    try TemporaryFolder.with { folder in
      let (top, _) = try GuestImages.chain(in: folder)
      let expected = try judged(top, "qcow2")
      #expect(expected.count == 3)
      try MountedImage.with(top, in: folder) { mount in
        let found = try data(of: mount.file("disk.raw"))
        #expect(found == expected)
      }
    }
  }

  @Test func findsTheHolesOfARawFile() throws {
    try TemporaryFolder.with { folder in
      let raw = try GuestImages.scattered("guest.raw", byteCount: 16 << 20, seed: 5, in: folder)
      let expected = try judged(raw, "raw")
      try MountedImage.with(raw, options: ["-F", "raw"], in: folder) { mount in
        let found = try data(of: mount.file("disk.raw"))
        #expect(found == expected)
      }
    }
  }

  /// What was written is data at once, also where only the kernel has it, by whichever of the disk's files.
  @Test(arguments: [[], ["-s"]]) func findsWhatOnlyTheKernelHas(_ more: [String]) throws {
    try TemporaryFolder.with { folder in
      let image = folder.file("empty.qcow2")
      try ReferenceTool.create(image, format: "qcow2", size: 64 << 20)
      try MountedImage.with(image, options: ["-o", "rw"] + more, in: folder) { mount in
        let layer = mount.file("layers/0-empty.qcow2/disk.raw")
        let descriptor = unsafe open(mount.file("disk.raw"), O_RDWR | O_CLOEXEC)
        defer { close(descriptor) }
        var expected: [Range<Int>] = []
        for place in [10 << 20, 30 << 20] {
          let bytes = [UInt8](repeating: 7, count: 1 << 20)
          let count = unsafe pwrite(descriptor, bytes, bytes.count, place)
          #expect(count == bytes.count)
          expected.append(place..<place + bytes.count)
          let file = place == 10 << 20 ? mount.file("disk.raw") : layer
          let found = try data(of: file)
          #expect(found == expected)
          let first = lseek(descriptor, 0, Self.seekData)
          #expect(first == 10 << 20)
        }
      }
    }
  }

  @Test func keepsCopiesSparse() throws {
    try TemporaryFolder.with { folder in
      let image = folder.file("large.qcow2")
      try ReferenceTool.qemuImg("create", "-f", "qcow2", image, "200G")
      try ReferenceTool.io(["write -P 1 100G 1M"], on: image, format: "qcow2")
      try MountedImage.with(image, in: folder) { mount in
        let copy = folder.file("copy.raw")
        try TestProcess.run(["/bin/cp", "--sparse=auto", mount.file("disk.raw"), copy], timeout: 30)
          .expecting(0)
        var status = stat()
        #expect(unsafe stat(copy, &status) == 0)
        #expect(status.st_size == 200 << 30)
        #expect(status.st_blocks <= 2 * 2048 + 64)
        #expect(try data(of: copy) == [(100 << 30)..<(100 << 30) + (1 << 20)])
      }
    }
  }
}
