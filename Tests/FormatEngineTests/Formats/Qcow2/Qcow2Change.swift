import TestSupport
import Testing

@testable import FormatEngine

/// What can be done to a qcow2 image: each kind of change, once.
enum Qcow2Change: String, CaseIterable, Sendable {
  case write, packed, zeros, discard
  case setBacking, grow, shrink, empty
  case createSnapshot, applySnapshot, deleteSnapshot
  case amend, addBitmap, removeBitmap, repair

  /// The image with what the change needs. It is one of 1 MiB with the snapshot "before", in clusters of 64 KiB.
  func prepare(_ image: Qcow2Bytes) throws -> Qcow2Bytes {
    switch self {
    case .repair:
      // A cluster that counts as used, though nothing refers to it.
      var damaged = image
      damaged.grow(clusters: 1)
      damaged.setCount(damaged.bytes.count / 65536 - 1, 1)
      return damaged
    case .removeBitmap: return try Self.addBitmap.done(to: image)
    default: return image
    }
  }

  func done(to image: Qcow2Bytes) throws -> Qcow2Bytes {
    let store = MemoryStore(image.bytes)
    try perform(on: store)
    return Qcow2Bytes(bytes: store.snapshot)
  }

  /// From the opening of the image to its closing.
  func perform(on store: any ByteStore) throws {
    let chain = try ImageChain.over(
      store, format: Qcow2Format.self, access: .readWrite, isForInspection: self == .repair)
    try perform(chain)
    try chain.close()
  }

  private func perform(_ chain: ImageChain) throws {
    let layer = try #require(chain.top as? Qcow2Layer)
    switch self {
    case .write: try chain.writeBytes([1, 2, 3], at: 70_000)
    case .packed: try chain.writePacked([UInt8](repeating: 5, count: 65536), at: 3 << 16)
    case .zeros: try chain.writeZeros(at: 65536, count: 65536)
    case .discard: try chain.discard(at: 65536, count: 65536)
    case .setBacking: try layer.setBacking(BackingReference(name: "base.raw", format: "raw"))
    case .grow: try chain.resize(to: 700 << 20)
    case .shrink: try chain.resize(to: 300 << 10)
    case .empty: try layer.removeContent(progress: .none)
    case .createSnapshot: try SnapshotChange.perform("create", layer)
    case .applySnapshot: try SnapshotChange.perform("apply", layer)
    case .deleteSnapshot: try SnapshotChange.perform("delete", layer)
    case .amend: try AnyChange.perform("refcount_bits=32", chain)
    case .addBitmap:
      try layer.changeBitmaps { (editor) throws(EngineError) in try editor.add("added", granularity: 65536) }
    case .removeBitmap: try layer.changeBitmaps { (editor) throws(EngineError) in try editor.remove("added") }
    case .repair:
      let report = try layer.repair(.all, progress: .none)
      #expect(report.leaksFixed == 1 && report.corruptions == 0)
    }
  }

  /// The fields of the header that the change is about, or that it may move.
  var fields: [Range<Int>] {
    let (backing, size, l1, refcounts, snapshots) = (8..<20, 24..<32, 36..<48, 48..<60, 60..<72)
    return switch self {
    case .write, .packed, .zeros, .discard, .repair: []
    case .setBacking: [backing]
    case .grow, .shrink: [size, l1, refcounts]
    case .empty, .applySnapshot: [l1, refcounts]
    case .createSnapshot, .deleteSnapshot: [l1, refcounts, snapshots]
    // The width of the counts, and where they are.
    case .amend: [refcounts, 96..<100]
    // The bit that says that they are valid.
    case .addBitmap, .removeBitmap: [refcounts, 88..<96]
    }
  }

  /// The header extension that it is about.
  var extensionType: UInt32? {
    switch self {
    case .setBacking: Qcow2HeaderExtensions.Kind.backingFormat
    case .addBitmap, .removeBitmap: Qcow2HeaderExtensions.Kind.bitmaps
    default: nil
    }
  }
}
