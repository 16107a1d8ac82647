import TestSupport
import Testing

@testable import FormatEngine

/// Damage that a check finds, and what a repair makes of it. QEMU has no check for the format.
@Suite struct QcowRepairTests {
  /// Places of a good image of 1 MiB: the L1 table at 48, the L2 table, cluster 16 that is stored.
  struct Damage: Sendable, CustomTestStringConvertible {
    var name: String
    var corruptions: UInt64
    var leaks: UInt64 = 0
    /// Corruptions that a repair cannot mend.
    var lasting: UInt64 = 0
    var change: @Sendable (inout ImageBytes, _ l2: Int) -> Void
    var testDescription: String { name }
  }

  static let damages = [
    Damage(name: "none", corruptions: 0) { _, _ in },
    Damage(name: "cluster past the end", corruptions: 1) {
      $0.put(1 << 40, at: $1 + 128, width: 8)
    },
    Damage(name: "cluster in the header", corruptions: 1, lasting: 1) {
      $0.put(1, at: $1 + 128, width: 8)
    },
    Damage(name: "cluster used twice", corruptions: 1, lasting: 1) {
      $0.put($0.number(at: $1 + 136, width: 8), at: $1 + 128, width: 8)
    },
    Damage(name: "cluster in the L2 table", corruptions: 1, lasting: 1) {
      $0.put(UInt64($1), at: $1 + 128, width: 8)
    },
    Damage(name: "packed cluster past the end", corruptions: 1) {
      $0.put(1 << 63 | 5 << 51 | 1 << 40, at: $1 + 128, width: 8)
    },
    Damage(name: "packed cluster of no bytes", corruptions: 1) {
      $0.put(1 << 63 | 8192, at: $1 + 128, width: 8)
    },
    Damage(name: "packed cluster in a stored one", corruptions: 1, lasting: 1) {
      $0.put(1 << 63 | 5 << 51 | $0.number(at: $1 + 136, width: 8), at: $1 + 128, width: 8)
    },
    Damage(name: "table past the end", corruptions: 1, leaks: 33) { image, _ in
      image.put(1 << 40, at: 48, width: 8)
    },
    Damage(name: "leak at the end", corruptions: 0, leaks: 2) { image, _ in
      image.bytes += [UInt8](repeating: 3, count: 2 * 4096)
    },
  ]

  @Test(arguments: damages) func damageIsFoundAndMended(_ damage: Damage) throws {
    var image = try QcowHeaderTests.good()
    damage.change(&image, Int(image.number(at: 48, width: 8)))
    let store = MemoryStore(image.bytes)
    let report = try Self.layer(store, .readOnly).check(progress: .none)
    #expect(report.corruptions == damage.corruptions && report.leaks == damage.leaks, "\(report)")
    #expect(store.snapshot == image.bytes)
    #expect(report.totalClusters == 256)

    let mended = try Self.layer(store, .readWrite).repair(.all, progress: .none)
    #expect(mended.corruptions == damage.lasting, "\(mended)")
    #expect(mended.corruptionsFixed == damage.corruptions - damage.lasting)
    let again = try Self.layer(store, .readOnly).check(progress: .none)
    #expect(again.corruptions == damage.lasting)
    #expect(again.leaks == mended.leaks)
    if damage.name == "leak at the end" { #expect(again.leaks == 0 && mended.leaksFixed == 2) }
  }

  @Test func packedClustersThatShareSectorsAreSound() throws {
    let image = try ImageBytes.judged(
      QcowFormat.self, isBigEndian: true, size: "1M",
      (0..<8).map { "write -q -c -P \($0 + 1) \($0 * 4096) 4096" })
    let report = try Self.layer(MemoryStore(image.bytes), .readOnly).check(progress: .none)
    #expect(report.corruptions == 0 && report.leaks == 0 && report.compressedClusters == 8, "\(report)")
  }

  private static func layer(_ store: any ByteStore, _ access: FileAccess) throws -> any Repairable {
    let chain = try ImageChain.over(
      store, format: QcowFormat.self, access: access, isForInspection: true)
    return try #require(chain.top as? any Repairable)
  }
}
