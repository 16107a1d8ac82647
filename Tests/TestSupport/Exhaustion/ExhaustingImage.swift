import FormatEngine
import Foundation

/// An image that is made to use up memory and time: with as much of something as its format allows, or more.
public struct ExhaustingImage: Sendable, CustomStringConvertible {
  public let description: String
  /// Its name in the folder in which it is made, or a name of another kind.
  public var name = "image"
  /// For `-f`; nil: probed.
  public var format: String?
  /// Commands that take as long as the disk, or the file, is that the image claims. They are ended after a moment.
  public var endless: Set<String> = []
  /// MiB that the work of a command needs, where it is more than nothing.
  public var needed: [String: Int] = [:]
  /// Whether it takes too long for every test run.
  public var isHeavy = false
  /// Whether imgfs may show it: one image, opened by its name.
  public var isMountable = true
  let make: @Sendable (TemporaryFolder) throws -> Void

  init(
    _ description: String, name: String = "image", format: String? = nil, endless: Set<String> = [],
    needed: [String: Int] = [:], isHeavy: Bool = false, isMountable: Bool = true,
    make: @escaping @Sendable (TemporaryFolder) throws -> Void
  ) {
    self.description = description
    self.name = name
    self.format = format
    self.endless = endless
    self.needed = needed
    self.isHeavy = isHeavy
    self.isMountable = isMountable
    self.make = make
  }

  /// All of them; those that take long only where there is time.
  public static let all: [ExhaustingImage] =
    (qcow2 + chains + vmdk + tables + vhdx + parallels + packed + others).filter {
      !$0.isHeavy || Effort.current == .soak
    }

  /// Makes it in a folder of its own and runs `body` there.
  public func with(_ body: (TemporaryFolder) throws -> Void) throws {
    try TemporaryFolder.with { folder in
      try make(folder)
      try body(folder)
    }
  }

  /// The judge's `create`, in the folder.
  static func create(_ format: String, _ size: String, _ options: [String] = [], in folder: TemporaryFolder)
    throws
  {
    let list = options.isEmpty ? [] : ["-o", options.joined(separator: ",")]
    try ReferenceTool.qemuImg.run(
      ["create", "-q", "-f", format] + list + ["image", size], folder: folder.path
    ).expecting()
  }
}

extension ExhaustingImage {
  /// What 64 MiB of zeros are packed to by Python's codec of this name: `zlib`, `bz2`, `lzma` (xz), or raw deflate.
  static func bomb(_ codec: String, mebibytes: Int = 64, in folder: TemporaryFolder) throws -> [UInt8] {
    let program = """
      import sys, zlib, bz2, lzma
      codec, count = sys.argv[1], int(sys.argv[2])
      deflate = zlib.compressobj(9, zlib.DEFLATED, -15 if codec == "deflate" else 15)
      packer = {"bz2": bz2.BZ2Compressor, "lzma": lzma.LZMACompressor}.get(codec, lambda: deflate)()
      with open("bomb", "wb") as file:
          for _ in range(count):
              file.write(packer.compress(bytes(1 << 20)))
          file.write(packer.flush())
      """
    try TestProcess.run(
      ["/usr/bin/python3", "-c", program, codec, "\(mebibytes)"], folder: folder.path
    ).expecting()
    return try Files.read(folder.file("bomb"))
  }
}
