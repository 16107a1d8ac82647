internal import CFuse
import FormatEngine
import Glibc

/// A tree of imgfs that is mounted, as other processes see it.
struct RunningMount {
  /// As the user gave it.
  let given: String
  /// As the kernel's table has it.
  let path: String
  var isReadOnly: Bool { entry.isReadOnly }
  private let entry: MountEntry

  /// Throws where imgfs has mounted nothing there.
  init(_ given: String) throws(EngineError) {
    self.given = given
    path = try Self.mountedPath(given)
    guard let entry = MountEntry.find(at: path), entry.type == MountEntry.imgfsType else {
      throw .invalid("'\(given)' is not a mount point of imgfs")
    }
    self.entry = entry
  }

  enum Place { case onTop, covered, gone }

  /// Whether it is mounted there still, and nothing over it.
  var place: Place {
    let entries = MountEntry.all().filter { $0.isMounted(at: path) }
    func isOurs(_ other: MountEntry) -> Bool { other.id == entry.id && other.device == entry.device }
    if let last = entries.last, isOurs(last) { return .onTop }
    return entries.contains(where: isOurs) ? .covered : .gone
  }

  /// Where the mount's process is gone it cannot be resolved itself, so its parent folder is.
  private static func mountedPath(_ given: String) throws(EngineError) -> String {
    do throws(EngineError) {
      return try HostFiles.realPath(given)
    } catch {
      guard error.errno == ENOTCONN else { throw error }
      var trimmed = given[...]
      while trimmed.count > 1, trimmed.hasSuffix("/") { trimmed = trimmed.dropLast() }
      let name = ImageName.lastComponent(of: String(trimmed))
      let folder = try HostFiles.realPath(ImageName.join(".", toFolderOf: String(trimmed)))
      return folder == "/" ? "/\(name)" : "\(folder)/\(name)"
    }
  }

  /// Nil where nobody answers for the mount any more.
  var process: ServingProcess? {
    let process = attribute(ServingProcess.attributeName).flatMap { ServingProcess($0) }
    return process?.isRunning == true ? process : nil
  }

  /// Why something that was asked for is not done.
  struct Refusal: Sendable {
    let error: EngineError
    /// Whether the process says so; otherwise the kernel does.
    let hasReason: Bool
  }

  /// Asks its process for a `MountRequest` and waits until that is done; nil where it is.
  func ask(for request: String) -> Refusal? {
    let word = Array("start".utf8)
    let number = unsafe path.withHostBytes { path in
      unsafe setxattr(path, request, word, word.count, 0) == 0 ? 0 : errno
    }
    guard number != 0 else { return nil }
    let lines = attribute(request)?.split(separator: "\n").map { String($0) } ?? []
    var error = EngineError(
      .system(errno: number), lines.first ?? EngineError.systemErrorText(number), path: given)
    error.additions = Array(lines.dropFirst())
    return Refusal(error: error, hasReason: !lines.isEmpty)
  }

  /// Folds its overlay into the image.
  func commit() throws(EngineError) {
    let refusal = WaitingLine.during("Folding the overlay of '\(given)' into its image") { _ in
      ask(for: MountRequest.commitName)
    }
    if let refusal {
      throw refusal.error.whileTrying("Could not fold the overlay of '\(given)' into its image")
    }
  }

  /// More than that no attribute has (XATTR_SIZE_MAX): reasons name files.
  private static let maximumAttributeByteCount = 65_536

  private func attribute(_ name: String) -> String? {
    var value = [UInt8](repeating: 0, count: Self.maximumAttributeByteCount)
    let count = unsafe path.withHostBytes { unsafe getxattr($0, name, &value, value.count) }
    return count > 0 ? String(hostBytes: value[..<count]) : nil
  }
}
