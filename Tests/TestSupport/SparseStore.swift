public import FormatEngine

/// A store in memory that has room for what is written only: files of a GiB that hold a few KiB.
public final class SparseStore: ByteStore {
  /// Pages that hold something, by number.
  private struct Content {
    var pages: [UInt64: [UInt8]] = [:]
    var byteCount: UInt64
    var changeCount = 0
    /// The numbers of the pages in order, nil after a page was added or taken away.
    var order: [UInt64]?
  }

  private static let pageByteCount: UInt64 = 4096
  /// The host's disk: what an input writes takes no more memory than this.
  private static let maximumPageCount = 4096
  private let maximumByteCount: UInt64
  /// ENOSPC.
  public static let noRoom: CInt = 28

  private let content: Guarded<Content>
  public let isWritable = true

  public init(byteCount: UInt64 = 0, atMost maximumByteCount: UInt64 = 1 << 40) {
    content = Guarded(Content(byteCount: byteCount))
    self.maximumByteCount = maximumByteCount
  }

  private init(_ content: Content, atMost maximumByteCount: UInt64) {
    self.content = Guarded(content)
    self.maximumByteCount = maximumByteCount
  }

  /// Another store with what this one holds now.
  public func copy() -> SparseStore {
    SparseStore(content.withLock { $0 }, atMost: maximumByteCount)
  }

  public var spliceDescriptor: CInt? { nil }
  /// How often something was changed.
  public var changeCount: Int { content.withLock { $0.changeCount } }

  public func byteCount() throws(EngineError) -> UInt64 { content.withLock { $0.byteCount } }
  public func allocatedByteCount() throws(EngineError) -> UInt64 {
    content.withLock { UInt64($0.pages.count) * Self.pageByteCount }
  }
  public func flush() throws(EngineError) {}

  public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(EngineError) {
    unsafe buffer.initializeMemory(as: UInt8.self, repeating: 0)
    content.withLock { content in
      Self.forEachPiece(offset, buffer.count) { number, inPage, done, count in
        guard let page = content.pages[number] else { return }
        // SAFETY: the piece is in the page and in the buffer.
        unsafe page.withUnsafeBytes { raw in
          unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[done..<done + count])
            .copyMemory(from: UnsafeRawBufferPointer(rebasing: raw[inPage..<inPage + count]))
        }
      }
    }
  }

  public func write(_ source: UnsafeRawBufferPointer, at offset: UInt64) throws(EngineError) {
    let end = try limit(offset, UInt64(source.count))
    let isFull = content.withLock { content in
      content.changeCount += 1
      if content.pages.count > Self.maximumPageCount { return true }
      Self.forEachPiece(offset, source.count) { number, inPage, done, count in
        if content.pages[number] == nil { content.order = nil }
        // SAFETY: the piece is in the page and in the source.
        unsafe content.pages[number, default: Self.emptyPage].withUnsafeMutableBytes { raw in
          unsafe UnsafeMutableRawBufferPointer(rebasing: raw[inPage..<inPage + count])
            .copyMemory(from: UnsafeRawBufferPointer(rebasing: source[done..<done + count]))
        }
      }
      content.byteCount = max(content.byteCount, end)
      return false
    }
    if isFull { throw EngineError(.system(errno: Self.noRoom), "No space left on device") }
  }

  public func writeZeros(at offset: UInt64, count: UInt64, freeing: Bool) throws(EngineError) {
    let end = try limit(offset, count)
    content.withLock { content in
      content.byteCount = max(content.byteCount, end)
      Self.clear(&content, from: offset, to: end)
    }
  }

  public func forget(at offset: UInt64, count: UInt64) {
    content.withLock { content in
      guard offset < content.byteCount else { return }
      Self.clear(&content, from: offset, to: offset + min(count, content.byteCount - offset))
    }
  }

  public func resize(to byteCount: UInt64) throws(EngineError) {
    _ = try limit(byteCount, 0)
    content.withLock { content in
      if byteCount < content.byteCount { Self.clear(&content, from: byteCount, to: content.byteCount) }
      content.changeCount += 1
      content.byteCount = byteCount
    }
  }

  public func run(at offset: UInt64, limit: UInt64) throws(EngineError) -> StoredRun {
    content.withLock { content in
      guard offset < content.byteCount else { return StoredRun(isData: false, length: limit) }
      let number = offset / Self.pageByteCount
      let inside = min(limit, content.byteCount - offset)
      if content.pages[number] != nil {
        var last = number
        while content.pages[last + 1] != nil { last += 1 }
        return StoredRun(isData: true, length: min(inside, (last + 1) * Self.pageByteCount - offset))
      }
      let order = content.order ?? content.pages.keys.sorted()
      content.order = order
      guard let next = order.first(where: { $0 > number }) else {
        return StoredRun(isData: false, length: inside)
      }
      return StoredRun(isData: false, length: min(inside, next * Self.pageByteCount - offset))
    }
  }

  // MARK: Pages

  private static let emptyPage = [UInt8](repeating: 0, count: Int(pageByteCount))

  private static func forEachPiece(
    _ offset: UInt64, _ count: Int, _ body: (_ page: UInt64, _ inPage: Int, _ done: Int, _ count: Int) -> Void
  ) {
    var done = 0
    while done < count {
      let place = offset + UInt64(done)
      let inPage = Int(place % pageByteCount)
      let piece = min(count - done, Int(pageByteCount) - inPage)
      body(place / pageByteCount, inPage, done, piece)
      done += piece
    }
  }

  private static func clear(_ content: inout Content, from start: UInt64, to end: UInt64) {
    content.changeCount += 1
    guard start < end else { return }
    let numbers = start / pageByteCount...(end - 1) / pageByteCount
    // The shorter way: the pages that there are, or those that could be.
    let found = numbers.count < content.pages.count ? Array(numbers) : Array(content.pages.keys)
    for number in found where content.pages[number] != nil {
      let first = number * pageByteCount
      let (from, to) = (max(first, start), min(first + pageByteCount, end))
      guard from < to else { continue }
      if to - from == pageByteCount {
        content.pages[number] = nil
        content.order = nil
      } else {
        for index in Int(from - first)..<Int(to - first) { content.pages[number]?[index] = 0 }
      }
    }
  }

  private func limit(_ offset: UInt64, _ count: UInt64) throws(EngineError) -> UInt64 {
    guard offset <= maximumByteCount, count <= maximumByteCount - offset else {
      throw EngineError(.system(errno: 27), "File too large")
    }
    return offset + count
  }
}
