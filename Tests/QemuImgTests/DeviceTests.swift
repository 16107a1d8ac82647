import FormatEngine
import Glibc
import TestSupport
import Testing

/// Block devices as images. They need root and loop devices.
@Suite(.enabled(if: MountedImage.canLoopMount)) struct DeviceTests {
  /// Runs `body` with a loop device of 8 MiB that holds random bytes.
  private func withDevice(
    sectorByteCount: Int = 512, _ body: (_ device: String, _ folder: TemporaryFolder) throws -> Void
  ) throws {
    try TemporaryFolder.with { folder in
      var random = SeededRandom(seed: 77)
      let file = try folder.write(random.bytes(8 << 20), to: "device")
      let made = try TestProcess.run(
        ["/usr/sbin/losetup", "-b", "\(sectorByteCount)", "-f", "--show", file]
      ).expecting()
      let device = String(made.stdoutText.dropLast())
      defer { _ = try? TestProcess.run(["/usr/sbin/losetup", "-d", device]) }
      try body(device, folder)
    }
  }

  private func source(in folder: TemporaryFolder) throws -> String {
    var random = SeededRandom(seed: 78)
    var bytes = random.bytes(3 << 20 + 1536)
    for index in 70_000..<1_500_000 { bytes[index] = 0 }
    return try folder.write(bytes, to: "source")
  }

  /// What was on the device before is no part of a new image on it.
  @Test(arguments: ["qcow2", "vdi", "raw", "luks"], [512, 4096])
  func imagesAreMadeOverOldBytes(_ format: String, _ sectorByteCount: Int) throws {
    try withDevice(sectorByteCount: sectorByteCount) { device, folder in
      let source = try source(in: folder)
      for mode in ["unsafe", "none"] {
        let secret = ["--object", "secret,id=s,data=x"]
        let options = format == "luks" ? secret + ["-o", "key-secret=s,iter-time=10"] : []
        try BuiltProduct.qemuImg.run(
          ["convert", "-f", "raw", "-O", format, "-t", mode, "-T", mode] + options + [source, device]
        ).expecting()
        let image =
          format == "luks"
          ? secret + [
            "--image-opts", "driver=luks,key-secret=s,file.driver=host_device,file.filename=\(device)",
          ]
          : ["-f", format, device]
        let raw = folder.file("raw")
        try ReferenceTool.qemuImg.run(
          ["convert"] + image.dropLast() + ["-O", "raw", image[image.count - 1], raw]
        )
        .expecting()
        // A raw disk, and what is encrypted on a device, is as long as the device.
        let content = try Files.read(raw).prefix(3 << 20 + 1536)
        #expect(ModelDisk.firstDifference(Array(content), try Files.read(source)) == nil, "\(mode)")
        if format == "qcow2" {
          #expect(try ReferenceTool.check(device, format: format, folder: folder.path).corruptions == 0)
        }
      }
    }
  }

  @Test func deviceIsShownAsWhatItIs() throws {
    try withDevice { device, folder in
      let plain = try folder.write([UInt8](repeating: 7, count: 4096), to: "plain")
      let info = try BuiltProduct.qemuImg.run(["info", "--output=json", device]).expecting().stdoutText
      #expect(info.contains("\"format\": \"host_device\"") && info.contains("\"virtual-size\": 8388608"))
      for (command, status, words) in [
        (["resize", "-f", "raw", device, "16M"], 1, "Cannot resize device files"),
        (["resize", "-f", "raw", device, "8M"], 0, ""),
        (["create", "-q", "-f", "raw", device, "16M"], 1, "Cannot grow device files"),
        (
          ["create", "-q", "-f", "raw", "-o", "preallocation=full", device, "1M"], 1,
          "Unsupported preallocation mode"
        ),
        (["info", "--image-opts", "driver=file,filename=\(device)"], 1, "to be a regular file"),
        (["info", "-f", "raw", "file:\(device)"], 1, "to be a regular file"),
        (["create", "-q", "-f", "raw", "file:\(device)", "1M"], 1, "Could not resize file"),
        (["convert", "-f", "raw", "-O", "raw", plain, "file:\(device)"], 1, "Could not resize file"),
        (
          ["create", "-q", "-f", "qcow2", "-b", "file:\(device)", "-F", "raw", folder.file("over")], 1,
          "to be a regular file"
        ),
      ] {
        let ours = try BuiltProduct.qemuImg.run(command).expecting(status)
        let judged = try ReferenceTool.qemuImg.run(command)
        #expect(ours.stderrText.contains(words))
        #expect(ours.stderrText == judged.stderrText && ours.status == judged.status, "\(command)")
      }
    }
  }

  @Test func zerosOfAnyRange() throws {
    try withDevice(sectorByteCount: 4096) { device, folder in
      for cache: CacheMode in [.writeback, .direct] {
        let store = try FileStore.open(device, access: .readWrite, cache: cache)
        #expect(try store.byteCount() == 8 << 20)
        var model = try store.bytes(at: 0, count: 1 << 20)
        for (offset, count) in [(0, 4096), (5000, 100), (8191, 8194), (100_001, 300_000), (1 << 20 - 1, 1)] {
          try store.writeZeros(at: UInt64(offset), count: UInt64(count), freeing: offset % 2 == 0)
          for index in offset..<offset + count { model[index] = 0 }
        }
        try store.write(bytes: [1, 2, 3], at: 4095)
        model.replaceSubrange(4095..<4098, with: [1, 2, 3])
        #expect(try store.bytes(at: 0, count: 1 << 20) == model)
        try store.flush()
        #expect(throws: EngineError.self) { try store.write(bytes: [1], at: 8 << 20) }
      }
    }
  }
}
