/// One step in the life of a file.
public enum FileEvent: Sendable {
  case write(offset: Int, bytes: [UInt8])
  case zeros(offset: Int, count: Int)
  case resize(Int)
  case flush
  /// The file gets its name; it has no bytes yet.
  case create
  case remove

  var isFlush: Bool { if case .flush = self { true } else { false } }

  /// The bytes that it is about; nil where that is the whole file.
  var place: Range<Int>? {
    switch self {
    case .write(let offset, let bytes): offset..<offset + bytes.count
    case .zeros(let offset, let count): offset..<offset + count
    case .resize, .flush, .create, .remove: nil
    }
  }

  /// Does it to a file; nil: there is none, and what is written to it is lost.
  func apply(to file: inout [UInt8]?) {
    switch self {
    case .create: if file == nil { file = [] }
    case .remove: file = nil
    case .flush: break
    default:
      // Taken out meanwhile: the bytes are to have one owner.
      guard var bytes = file.take() else { return }
      apply(to: &bytes)
      file = bytes
    }
  }

  /// Does it to the bytes of a file that is there and stays.
  func apply(to bytes: inout [UInt8]) {
    switch self {
    case .write(let offset, let source):
      Self.grow(&bytes, to: offset + source.count)
      bytes.overwrite(at: offset, with: source)
    case .zeros(let offset, let count):
      Self.grow(&bytes, to: offset + count)
      bytes.overwriteWithZeros(at: offset, count: count)
    case .resize(let count):
      if bytes.count > count { bytes.removeLast(bytes.count - count) } else { Self.grow(&bytes, to: count) }
    case .flush, .create, .remove: break
    }
  }

  private static func grow(_ bytes: inout [UInt8], to count: Int) {
    if bytes.count < count { bytes.append(contentsOf: [UInt8](repeating: 0, count: count - bytes.count)) }
  }

  /// A part of a write: what comes before a boundary of `unit` bytes, or what comes behind one.
  func torn(_ unit: Int, _ random: inout SeededRandom) -> FileEvent {
    guard case .write(let offset, let bytes) = self else { return self }
    let first = (offset / unit + 1) * unit - offset
    guard first < bytes.count else { return self }
    let pieces = (bytes.count - first + unit - 1) / unit
    let kept = first + random.below(pieces) * unit
    if random.oneIn(2) { return .write(offset: offset, bytes: Array(bytes[..<kept])) }
    return .write(offset: offset + kept, bytes: Array(bytes[kept...]))
  }
}
