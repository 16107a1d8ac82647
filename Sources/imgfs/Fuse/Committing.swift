internal import CFuse
import FormatEngine
import Glibc

/// Asks the process that serves a tree to fold its overlay into the image.
enum Committing {
  /// More is no sentence.
  private static let maximumReasonByteCount = 4096

  static func commit(_ given: String) throws(EngineError) {
    let path = try HostFiles.realPath(given)
    guard let entry = MountEntry.find(at: path), entry.type == MountEntry.imgfsType else {
      throw .invalid("'\(given)' is not a mount point of imgfs")
    }
    let number = WaitingLine.during("Folding the overlay of '\(given)' into its image") {
      let word = Array("start".utf8)
      return unsafe path.withHostBytes { path in
        unsafe setxattr(path, OverlayCommit.attributeName, word, word.count, 0) == 0 ? 0 : errno
      }
    }
    guard number != 0 else { return }
    throw EngineError(
      .system(errno: number),
      "Could not fold the overlay of '\(given)' into its image: "
        + (reason(at: path) ?? EngineError.systemErrorText(number)), path: given)
  }

  /// What the process says of the last attempt, nil where it says nothing.
  private static func reason(at path: String) -> String? {
    var value = [UInt8](repeating: 0, count: maximumReasonByteCount)
    let count = unsafe path.withHostBytes {
      unsafe getxattr($0, OverlayCommit.attributeName, &value, value.count)
    }
    return count > 0 ? String(hostBytes: value[..<count]) : nil
  }
}
