import FormatEngine
import Foundation

/// A file that is written piece by piece, with holes between: images that claim far more than they hold.
struct SparseFile {
  private let handle: FileHandle

  /// A new file, read as zeros up to `byteCount`.
  init(_ path: String, byteCount: UInt64 = 0) throws {
    guard FileManager.default.createFile(atPath: path, contents: nil),
      let handle = FileHandle(forUpdatingAtPath: path)
    else { throw TestFailure("Could not make '\(path)'") }
    self.handle = handle
    try resize(to: byteCount)
  }

  /// A file that is there.
  init(updating path: String) throws {
    guard let handle = FileHandle(forUpdatingAtPath: path) else {
      throw TestFailure("Could not open '\(path)'")
    }
    self.handle = handle
  }

  func resize(to byteCount: UInt64) throws { try handle.truncate(atOffset: byteCount) }

  func write(_ bytes: [UInt8], at offset: UInt64) throws {
    try handle.seek(toOffset: offset)
    try handle.write(contentsOf: bytes)
  }

  /// The same bytes over and over, `count` times: a table whose entries are all alike.
  func write(repeating bytes: [UInt8], count: Int, at offset: UInt64) throws {
    let many = max(1, 1 << 20 / bytes.count)
    let piece = [UInt8]((0..<min(many, count)).map { _ in bytes }.joined())
    var done = 0
    while done < count {
      let next = min(many, count - done)
      try write(
        next == many ? piece : Array(piece.prefix(next * bytes.count)),
        at: offset + UInt64(done * bytes.count))
      done += next
    }
  }

  func put(bigEndian value: some FixedWidthInteger, at offset: UInt64) throws {
    var bytes: [UInt8] = []
    bytes.append(bigEndian: value)
    try write(bytes, at: offset)
  }

  func put(littleEndian value: some FixedWidthInteger, at offset: UInt64) throws {
    try put(bigEndian: value.byteSwapped, at: offset)
  }

  func bytes(at offset: UInt64, count: Int) throws -> [UInt8] {
    try handle.seek(toOffset: offset)
    return try handle.read(upToCount: count).map { [UInt8]($0) } ?? []
  }
}
