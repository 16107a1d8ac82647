import CAllocationCounter
import FormatEngine
import TestSupport
import Testing

/// An image in memory that may be damaged in any way, and what must hold then.
enum HostileImage {
  /// What one call may ask the heap for: the largest unit that is unpacked at once, packed and unpacked, and room
  /// to spare.
  private static let maximumByteCount = 160 << 20

  private static func bounded<T>(_ what: String, _ body: () throws -> T) -> T? {
    let before = imgfs_allocated_byte_count()
    let result = try? body()
    let count = imgfs_allocated_byte_count() - before
    #expect(count < maximumByteCount, "\(what): \(count) bytes")
    return result
  }

  /// Opens and reads it in all ways; errors of the engine are fine, memory and time are bounded.
  static func use(_ bytes: [UInt8], as format: any ImageFormat.Type, path: String = "memory", _ what: String)
  {
    let store = MemoryStore(bytes)
    Deadline.within(seconds: 20, what) {
      guard let chain = bounded(what, { try ImageChain.over(store, format: format, path: path) }) else {
        return
      }
      let size = chain.virtualSize
      var position: UInt64 = 0
      for _ in 0..<64 where position < size {
        guard let found = bounded(what, { try chain.extent(at: position, limit: size - position) }) else {
          position += 4096
          continue
        }
        #expect(found.extent.length > 0 && found.extent.length <= size - position, "\(what)")
        let count = Int(min(found.extent.length, 5000))
        _ = bounded(what) { try chain.readBytes(at: position, count: count) }
        position += found.extent.length
      }
      if size > 0 { _ = bounded(what) { try chain.readBytes(at: size - 1, count: 1) } }
      _ = try? (chain.top as? any Checkable)?.check(progress: .none)
    }
  }

  /// Puts each value of a field in turn.
  static func use(
    _ good: [UInt8], as format: any ImageFormat.Type, path: String = "memory", _ field: HeaderField,
    isLittleEndian: Bool = false
  ) {
    for value in field.values {
      var bytes = good
      for index in 0..<field.width {
        let shift = UInt64(8 * (isLittleEndian ? index : field.width - 1 - index))
        bytes[field.offset + index] = UInt8(truncatingIfNeeded: value >> shift)
      }
      use(bytes, as: format, path: path, "\(field.name) = \(value)")
    }
  }

  /// The words with which an image is refused.
  static func refusal(_ bytes: [UInt8], as format: any ImageFormat.Type, path: String = "memory") -> String? {
    do throws(EngineError) { _ = try ImageChain.over(MemoryStore(bytes), format: format, path: path) } catch {
      return error.message
    }
    return nil
  }
}
