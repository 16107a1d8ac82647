internal import Glibc
import TestSupport

/// Tells whether files were opened, by anyone: the kernel's own word for it.
final class OpenTrap {
  private let descriptor: CInt
  private var paths: [CInt: String] = [:]

  init(on paths: [String]) throws {
    descriptor = inotify_init1(CInt(IN_NONBLOCK) | CInt(IN_CLOEXEC))
    guard descriptor >= 0 else { throw TestFailure("No inotify") }
    for path in paths {
      let watch = unsafe inotify_add_watch(descriptor, path, UInt32(IN_OPEN))
      guard watch >= 0 else { throw TestFailure("'\(path)' cannot be watched") }
      self.paths[watch] = path
    }
  }

  deinit { close(descriptor) }

  /// Those that were opened since the last call, each once.
  func opened() -> [String] {
    var found: [String] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while true {
      let count = unsafe buffer.withUnsafeMutableBytes { unsafe read(descriptor, $0.baseAddress, $0.count) }
      guard count > 0 else { return found }
      var offset = 0
      // struct inotify_event: the watch first, the length of the name after three more words.
      while offset + 16 <= count {
        let (watch, length) = unsafe buffer.withUnsafeBytes {
          unsafe (
            $0.loadUnaligned(fromByteOffset: offset, as: CInt.self),
            $0.loadUnaligned(fromByteOffset: offset + 12, as: UInt32.self)
          )
        }
        if let path = paths[watch], !found.contains(path) { found.append(path) }
        offset += 16 + Int(length)
      }
    }
  }
}
