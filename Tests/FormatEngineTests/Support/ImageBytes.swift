import CAllocationCounter
import FormatEngine
import TestSupport
import Testing

/// The bytes of an image of any format, to be damaged field by field.
struct ImageBytes {
  var bytes: [UInt8]
  let format: any ImageFormat.Type
  let isBigEndian: Bool

  /// An image that the judge makes with these options and fills by these qemu-io commands.
  static func judged(
    _ format: any ImageFormat.Type, isBigEndian: Bool, size: String, options: [String] = [],
    _ commands: [String]
  ) throws -> ImageBytes {
    let key = ([format.name, size] + options + commands).joined(separator: "|")
    if let known = made.withLock({ $0[key] }) {
      return ImageBytes(bytes: known, format: format, isBigEndian: isBigEndian)
    }
    let bytes = try TemporaryFolder.with { folder in
      let path = folder.file("image")
      let given = options.isEmpty ? [] : ["-o", options.joined(separator: ",")]
      try ReferenceTool.qemuImg.run(["create", "-q", "-f", format.name] + given + [path, size]).expecting(0)
      if !commands.isEmpty { try ReferenceTool.io(commands, on: path, format: format.name) }
      return try Files.read(path)
    }
    made.withLock { $0[key] = bytes }
    return ImageBytes(bytes: bytes, format: format, isBigEndian: isBigEndian)
  }

  private static let made = Guarded<[String: [UInt8]]>([:])

  func number(at offset: Int, width: Int) -> UInt64 {
    let field = bytes[offset..<offset + width]
    return (isBigEndian ? Array(field) : field.reversed()).reduce(0) { $0 << 8 | UInt64($1) }
  }

  mutating func put(_ value: UInt64, at offset: Int, width: Int) {
    for index in 0..<width {
      let shift = UInt64(8 * (isBigEndian ? width - 1 - index : index))
      bytes[offset + index] = UInt8(truncatingIfNeeded: value >> shift)
    }
  }

  func with(_ value: UInt64, at offset: Int, width: Int) -> ImageBytes {
    var copy = self
    copy.put(value, at: offset, width: width)
    return copy
  }

  func open(_ access: FileAccess = .readOnly, isForInspection: Bool = false) throws(EngineError) -> ImageChain
  {
    try ImageChain.over(
      MemoryStore(bytes), format: format, access: access, isForInspection: isForInspection)
  }

  /// Why it does not open, nil where it does.
  func openError(_ access: FileAccess = .readOnly) -> EngineError? {
    do throws(EngineError) {
      _ = try open(access)
      return nil
    } catch {
      return error
    }
  }

  /// Opens it and reads its start, for which the heap is asked for less than `most` bytes.
  func openInLittleMemory(_ most: Int, _ what: String) {
    let store = MemoryStore(bytes)
    let before = imgfs_allocated_byte_count()
    if let chain = try? ImageChain.over(store, format: format) { _ = try? chain.readBytes(at: 0, count: 512) }
    #expect(imgfs_allocated_byte_count() - before < most, "\(what)")
  }

  /// An attempt to open it for writing leaves its file as it is.
  func expectUnchangedByOpening() throws {
    try TemporaryFolder.with { folder in
      let path = try folder.write(bytes, to: "image")
      _ = try? ImageOpener.open(path, OpenOptions(format: format.name, access: .readWrite))
      #expect(try Files.read(path) == bytes)
    }
  }

  /// Opens it, reads here and there, checks it, writes to it: errors of the engine are fine.
  func useEverything(_ what: String) {
    Deadline.within(seconds: 20, what) {
      let store = MemoryStore(bytes)
      guard let chain = try? ImageChain.over(store, format: format) else { return }
      let size = chain.virtualSize
      for offset in [0, 65536, size / 2, size - min(size, 512)] where offset < size {
        _ = try? chain.readBytes(at: offset, count: Int(min(4096, size - offset)))
        if let found = try? chain.extent(at: offset, limit: size - offset) {
          #expect(found.extent.length > 0 && found.extent.length <= size - offset, "\(what)")
        }
      }
      if let checkable = chain.top as? any Checkable { _ = try? checkable.check(progress: .none) }
      #expect(store.snapshot == bytes, "\(what): reading changed the file")
      guard let writable = try? ImageChain.over(MemoryStore(bytes), format: format, access: .readWrite) else {
        return
      }
      for offset in [0, 65536, size / 2] where offset + 4096 <= size {
        try? writable.writeBytes([UInt8](repeating: 7, count: 4096), at: offset)
        try? writable.writeZeros(at: offset, count: 4096)
      }
      try? writable.close()
    }
  }
}
