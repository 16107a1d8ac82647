internal import CLinux
import FormatEngine

/// A file of text that is written when somebody first wants to see it.
final class TextFile: Sendable {
  private struct State {
    var content: [UInt8]?
    var byteCount: UInt64?
    /// Why it is too large to be shown, and how long nobody needs to find that out again.
    var refusal: (error: EngineError, until: Double)?
  }

  /// Longer texts are written again for everybody who opens them, rather than kept.
  private static let maximumKeptByteCount = Int(MiB)
  private static let secondsOfRefusal = 60.0

  private let write: @Sendable () throws(EngineError) -> [UInt8]
  /// Held while the text is written, so that it is written once. Before every lock of the engine.
  private let state = Guarded(State())

  /// Whether the tree around it may change: its size must then be true whenever it is looked up, since the kernel
  /// keeps the first size that it is told of a file in a tree that can be written.
  let isLive: Bool

  init(isLive: Bool = false, _ write: @escaping @Sendable () throws(EngineError) -> [UInt8]) {
    self.isLive = isLive
    self.write = write
  }

  /// The size in bytes, if it is known without writing the text.
  var knownByteCount: UInt64? { state.withLock { $0.byteCount } }

  func byteCount() throws(EngineError) -> UInt64 {
    if let known = knownByteCount { return known }
    return UInt64(try content().count)
  }

  func content() throws(EngineError) -> [UInt8] {
    try state.withLock { (state) throws(EngineError) in
      if let content = state.content { return content }
      if let refusal = state.refusal, HostClock.steadySeconds < refusal.until { throw refusal.error }
      let content: [UInt8]
      do throws(EngineError) { content = try writeAndTidy() } catch {
        if error.code == .tooLarge {
          state.refusal = (error, until: HostClock.steadySeconds + Self.secondsOfRefusal)
        }
        throw error
      }
      if content.count <= Self.maximumKeptByteCount { state.content = content }
      state.byteCount = UInt64(content.count)
      return content
    }
  }

  /// What a long text was made of is free again, but in pieces all over the place: it goes back to the system, or each
  /// thread's next text would take as much.
  private func writeAndTidy() throws(EngineError) -> [UInt8] {
    do throws(EngineError) {
      let content = try write()
      if content.count > Self.maximumKeptByteCount { malloc_trim(0) }
      return content
    } catch {
      if error.code == .tooLarge { malloc_trim(0) }
      throw error
    }
  }

  /// Lets go of the text; it is written again where it is wanted again.
  func release() { state.withLock { ($0.content, $0.refusal) = (nil, nil) } }
}
