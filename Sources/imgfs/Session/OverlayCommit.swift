import FormatEngine
import Synchronization

/// Folds the overlay of a mounted image into the image, while the mount goes on.
final class OverlayCommit: Sendable {
  /// The extended attribute of the root that asks for it when it is set, and then has the reason why it failed.
  static let attributeName = ExtendedAttributes.prefix + "commit"

  private let overlay: Overlay
  private let session: ImageSession
  private let failure = Mutex<EngineError?>(nil)

  init(_ overlay: Overlay, of session: ImageSession) {
    self.overlay = overlay
    self.session = session
  }

  /// All requests wait meanwhile. What the kernel has not written yet is in the overlay afterwards.
  func run() throws(EngineError) {
    do throws(EngineError) {
      try session.replacingChain {
        do throws(EngineError) {
          try overlay.commit()
          return (overlay.chain, nil)
        } catch {
          return (overlay.chain, error)
        }
      }
      failure.withLock { $0 = nil }
    } catch {
      failure.withLock { $0 = error }
      throw error
    }
  }

  /// Why the last attempt failed; nil where it did not.
  var reason: String? { failure.withLock { $0?.message } }
}
