import FormatEngine

/// Work that another process asks of a mount, by setting an extended attribute of its root: the attribute's name says
/// what. Afterwards it has the reason why the last attempt failed, if it did.
final class MountRequest: Sendable {
  /// Folds the overlay into the image.
  static let commitName = ExtendedAttributes.prefix + "commit"
  /// Puts on disk what was written.
  static let flushName = ExtendedAttributes.prefix + "flush"

  private let body: @Sendable () throws(EngineError) -> Void
  private let failure = Guarded<EngineError?>(nil)

  init(_ body: @escaping @Sendable () throws(EngineError) -> Void) { self.body = body }

  func run() throws(EngineError) {
    do throws(EngineError) {
      try body()
      failure.withLock { $0 = nil }
    } catch {
      failure.withLock { $0 = error }
      throw error
    }
  }

  /// Why the last attempt failed, and what there is to add, a line each, whatever names are in them; nil where it did not.
  var reason: String? {
    failure.withLock { $0 }.map { ([$0.message] + $0.additions).map(Terminal.shown).joined(separator: "\n") }
  }
}

extension MountRequest {
  /// While the mount goes on. All its requests wait meanwhile. What the kernel has not written yet is in the overlay
  /// afterwards.
  static func commit(_ overlay: Overlay, of session: ImageSession) -> MountRequest {
    MountRequest { () throws(EngineError) in
      try session.replacingChain {
        do throws(EngineError) {
          try overlay.commit()
          return (overlay.chain, nil)
        } catch {
          return (overlay.chain, error)
        }
      }
    }
  }
}
