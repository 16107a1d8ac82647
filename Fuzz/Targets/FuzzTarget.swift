import FormatEngine

/// A promise that was broken by what an input held: a bug, where an `EngineError` is none.
public struct FuzzFinding: Error, CustomStringConvertible {
  public var description: String

  init(_ description: String) { self.description = description }
}

/// One thing of the project that reads bytes from strangers, fed with any bytes.
///
/// Whatever the bytes are, it comes back soon, with little memory, without a trap; only a broken promise is thrown. The same bytes do the
/// same, so that a finding can be repeated: nothing is random but what the input says.
public struct FuzzTarget: Sendable {
  /// As `scripts/fuzz` takes it, and as the folders of its inputs and findings are called.
  public var name: String
  /// What its inputs are made of.
  public var meaning: String
  private let body: @Sendable (_ input: [UInt8]) throws -> Void

  init(_ name: String, _ meaning: String, _ body: @escaping @Sendable (_ input: [UInt8]) throws -> Void) {
    self.name = name
    self.meaning = meaning
    self.body = body
  }

  /// Throws a `FuzzFinding` only: that bytes of an image are refused is as it should be.
  public func run(_ input: [UInt8]) throws(FuzzFinding) {
    do { try body(input) } catch let finding as FuzzFinding {
      throw finding
    } catch let error as EngineError {
      if error.message.isEmpty { throw FuzzFinding("An error without words: \(error)") }
    } catch {
      throw FuzzFinding("An error of another kind: \(error)")
    }
  }

  /// All of them. A format is fuzzed as soon as the catalogue has it.
  public static let all: [FuzzTarget] =
    FormatCatalog.all.map { format in
      FuzzTarget(format.name, "an image of this format, packed (scripts/lib/fuzz/pack)") { input in
        try ImageFuzzing(format: format).run(input)
      }
    } + [
      FuzzTarget("vmdk-descriptor", "the text that names the extents of a VMDK", TextFuzzing.descriptor),
      FuzzTarget("parallels-bundle", "the DiskDescriptor.xml of a Parallels disk", TextFuzzing.bundle),
      FuzzTarget("property-list", "the property list of a DMG", TextFuzzing.propertyList),
      FuzzTarget("dmg-chunk", "the kind of a chunk, its sectors, what is packed in it", ChunkFuzzing.run),
      FuzzTarget(
        "partitions", "a disk with a partition table or a file system, packed", PartitionFuzzing.run),
      FuzzTarget(
        "names", "what an image is called on a command line: json:, prefixes, options", NameFuzzing.run),
      FuzzTarget("options", "a command line: its options, lists, sizes, objects", OptionFuzzing.run),
      FuzzTarget("writes", "a kind of image, and what is done to it, beside a model", WriteFuzzing.run),
    ]

  public static func named(_ name: String) -> FuzzTarget? { all.first { $0.name == name } }
}
