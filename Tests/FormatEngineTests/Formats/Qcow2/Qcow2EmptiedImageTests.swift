import TestSupport
import Testing

@testable import FormatEngine

/// An image that is emptied, as `commit` does: all that is not the disk's own bytes stays.
@Suite struct Qcow2EmptiedImageTests {
  struct Kind: Sendable, CustomTestStringConvertible {
    var isEncrypted: Bool
    var hasBitmaps: Bool
    var hasSnapshot: Bool
    var testDescription: String {
      [(isEncrypted, "key"), (hasBitmaps, "bitmaps"), (hasSnapshot, "snapshot")].filter(\.0).map(\.1)
        .joined(separator: ", ")
    }
    var passphrase: String? { isEncrypted ? EncryptedImage.passphrase : nil }
  }

  static let kinds = [
    Kind(isEncrypted: true, hasBitmaps: false, hasSnapshot: false),
    Kind(isEncrypted: false, hasBitmaps: true, hasSnapshot: false),
    Kind(isEncrypted: true, hasBitmaps: true, hasSnapshot: false),
    Kind(isEncrypted: true, hasBitmaps: false, hasSnapshot: true),
    Kind(isEncrypted: false, hasBitmaps: true, hasSnapshot: true),
    Kind(isEncrypted: true, hasBitmaps: true, hasSnapshot: true),
  ]

  private static let content = (0..<(1 << 20)).map { UInt8(truncatingIfNeeded: $0 >> 9) | 1 }

  private func open(_ store: any ByteStore, _ kind: Kind, _ access: FileAccess = .readOnly)
    throws(EngineError) -> ImageChain
  {
    try ImageChain.over(store, format: Qcow2Format.self, access: access, passphrase: kind.passphrase)
  }

  /// A disk full of bytes, with what the kind has beside them.
  private func image(_ kind: Kind) throws -> MemoryStore {
    let plain = try kind.isEncrypted ? nil : Qcow2Bytes.judged(hasSnapshot: false)
    let store = try plain.map { MemoryStore($0.bytes) } ?? EncryptedImage().store
    let chain = try open(store, kind, .readWrite)
    let layer = try #require(chain.top as? Qcow2Layer)
    if kind.hasBitmaps {
      try layer.changeBitmaps { (editor) throws(EngineError) in
        try editor.add("on", granularity: 512)
        try editor.add("off", granularity: 65536, isEnabled: false)
      }
    }
    try chain.writeBytes(Self.content, at: 0)
    if kind.hasSnapshot {
      try layer.createSnapshot(named: "s", at: SnapshotDate(seconds: 1, nanoseconds: 0))
      try chain.writeBytes([UInt8](repeating: 9, count: 100_000), at: 300_000)
    }
    try chain.close()
    return store
  }

  private struct Bitmap: Equatable {
    var record: BitmapRecord
    var dirty: [Range<UInt64>]
  }

  private func bitmaps(_ chain: ImageChain) throws -> [Bitmap] {
    try chain.bitmapLayer.bitmaps().map { Bitmap(record: $0, dirty: try chain.dirtyRuns($0.name)) }
  }

  /// The clusters of the LUKS header, and the extension that says where they are.
  private func key(_ image: Qcow2Bytes) throws -> [UInt8]? {
    guard let place = image.headerExtension(0x0537_be77) else { return nil }
    let (start, count) = (
      Int(image.number(at: place.offset, width: 8)), Int(image.number(at: place.offset + 8, width: 8))
    )
    return Array(image.bytes[place.offset..<place.offset + 16]) + image.bytes[start..<start + count]
  }

  @Test(arguments: kinds) func keepsItsKeyItsBitmapsAndItsSnapshots(_ kind: Kind) throws {
    let store = try image(kind)
    let before = Qcow2Bytes(bytes: store.snapshot)
    let bitmapsBefore = try bitmaps(try open(store, kind))
    #expect(bitmapsBefore.isEmpty != kind.hasBitmaps)
    #expect(!kind.hasBitmaps || bitmapsBefore.contains { !$0.dirty.isEmpty })
    let chain = try open(store, kind, .readWrite)
    try #require(chain.top as? any Emptyable).removeContent(progress: .none)
    try chain.close()
    let emptied = Qcow2Bytes(bytes: store.snapshot)
    #expect(try key(emptied) == key(before))
    #expect(try (key(emptied) == nil) != kind.isEncrypted)
    // Bitmaps stay where they are, at the end of the file.
    if !kind.hasSnapshot && !kind.hasBitmaps {
      #expect(emptied.bytes.count + (1 << 20) <= before.bytes.count)
    }
    try expect(store, kind, reads: [UInt8](repeating: 0, count: 1 << 20), bitmapsBefore, "emptied")
    // What comes next takes no room of theirs.
    let writing = try open(store, kind, .readWrite)
    try writing.writeBytes(Self.content, at: 0)
    try writing.close()
    #expect(try key(Qcow2Bytes(bytes: store.snapshot)) == key(before))
    try expect(store, kind, reads: Self.content, bitmapsBefore, "written again")
  }

  private func expect(
    _ store: MemoryStore, _ kind: Kind, reads bytes: [UInt8],
    _ bitmapsBefore: [Bitmap], _ moment: Comment
  ) throws {
    let chain = try open(store, kind)
    #expect(ModelDisk.firstDifference(try chain.readAll(), bytes) == nil, moment)
    // All of them were dirty, so that writing again adds nothing.
    #expect(try bitmaps(chain) == bitmapsBefore, moment)
    let keeping = try #require(chain.top as? any SnapshotKeeping)
    #expect(try keeping.snapshots().count == (kind.hasSnapshot ? 1 : 0), moment)
    if let record = try keeping.snapshots().first {
      let snapshot = chain.replacing(layerAt: 0, with: try keeping.openSnapshot(record))
      #expect(ModelDisk.firstDifference(try snapshot.readAll(), Self.content) == nil, moment)
    }
    let report = try #require(chain.top as? any Checkable).check(progress: .none)
    #expect(report.corruptions == 0 && report.leaks == 0, "\(moment): \(report.findings)")
    try TemporaryFolder.with { folder in
      let path = try folder.write(store.snapshot, to: "image")
      let verdict = try ReferenceTool.check(path, passphrase: kind.passphrase)
      #expect(verdict.isClean, "\(moment): \(verdict.text)")
      let judged = try ReferenceTool.content(
        of: path, format: "qcow2", in: folder, passphrase: kind.passphrase)
      #expect(ModelDisk.firstDifference(judged, bytes) == nil, moment)
    }
  }
}
