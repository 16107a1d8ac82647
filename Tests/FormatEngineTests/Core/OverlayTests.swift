import FormatEngine
import TestSupport
import Testing

/// Images over others that only the command line names.
@Suite struct OverlayTests {
  /// What the command line puts below an image that names nothing counts as its backing file does.
  @Test(arguments: ["qcow", "qcow2", "qed"])
  func zerosHideWhatTheCommandLinePutsBelow(_ format: String) throws {
    try TemporaryFolder.with { folder in
      try folder.write([UInt8](repeating: 5, count: 1 << 20), to: "base.raw")
      let path = folder.file("image")
      try ReferenceTool.qemuImg("create", "-q", "-f", format, path, "1M", folder: folder.path)
      var options = OpenOptions(format: format, access: .readWrite)
      options.layerOptions = ["backing.driver": "raw", "backing.file.filename": folder.file("base.raw")]
      let chain = try ImageOpener.open(path, options)
      var model = ModelDisk([UInt8](repeating: 5, count: 1 << 20))
      for range in [1000..<1100, 65_536..<200_000, 524_288..<1_048_576] {
        try chain.writeZeros(at: UInt64(range.lowerBound), count: UInt64(range.count))
        model.writeZeros(at: range.lowerBound, count: range.count)
      }
      #expect(ModelDisk.firstDifference(try chain.readAll(), model.bytes) == nil)
      try chain.close()
      #expect(ModelDisk.firstDifference(try ImageOpener.open(path, options).readAll(), model.bytes) == nil)
    }
  }
}
