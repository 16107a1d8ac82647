internal import CLinux
import Glibc
import Synchronization

/// The file system that this very process serves, where it serves one. Whoever looks into it asks this process, and may keep waiting the
/// thread that is to answer: what leads there - a link in a folder, a name in an image - must be known before it is followed.
public final class ServedTree: Sendable {
  /// The number of its device; the highest one: there is none yet.
  private let device = Atomic<UInt64>(.max)
  private static let maximumLinkCount = 40

  public init() {}

  /// To be called with the device number of the file system once it is mounted.
  public func start(major: UInt32, minor: UInt32) {
    device.store(Self.number(major, minor), ordering: .releasing)
  }

  private static func number(_ major: UInt32, _ minor: UInt32) -> UInt64 {
    UInt64(major) << 32 | UInt64(minor)
  }

  /// Whether a path leads into it, through whatever links and mounts. It is followed name by name, and not a step further
  /// than to the file system's root: nothing is asked of it.
  public func holds(_ path: String) -> Bool {
    guard device.load(ordering: .acquiring) != .max else { return false }
    var names = Array(Self.names(path.hostBytes).reversed())
    var folder = Step(at: path.utf8.first == UInt8(ascii: "/") ? "/" : ".", in: CInt(IMGFS_AT_FDCWD))
    var linkCount = 0
    while let current = folder, let name = names.popLast() {
      guard let next = Step(at: String(hostBytes: name), in: current.descriptor), let look = next.look()
      else {
        return false
      }
      if look.device == device.load(ordering: .acquiring) { return true }
      guard look.kind == S_IFLNK else {
        folder = next
        continue
      }
      linkCount += 1
      guard linkCount <= Self.maximumLinkCount, let target = next.target() else { return false }
      if target.first == UInt8(ascii: "/") { folder = Step(at: "/", in: CInt(IMGFS_AT_FDCWD)) }
      names += Self.names(target).reversed()
    }
    return false
  }

  /// The same of the last name alone, where the folder is known to lie outside. Nil: it has to be followed, for it is a link or a
  /// folder.
  public func holdsFile(_ path: String) -> Bool? {
    guard device.load(ordering: .acquiring) != .max else { return false }
    guard let look = Step.look(at: path, in: CInt(IMGFS_AT_FDCWD)) else { return false }
    if look.device == device.load(ordering: .acquiring) { return true }
    return look.kind == S_IFLNK || look.kind == S_IFDIR ? nil : false
  }

  private static func names(_ path: [UInt8]) -> [[UInt8]] {
    path.split(separator: UInt8(ascii: "/")).map { Array($0) }.filter { $0 != [UInt8(ascii: ".")] }
  }

  /// What a name stands for, held without being opened.
  private final class Step {
    let descriptor: CInt

    /// Nil where there is nothing.
    init?(at name: String, in folder: CInt) {
      descriptor = unsafe name.withHostBytes {
        unsafe openat(folder, $0, CInt(IMGFS_O_PATH) | O_NOFOLLOW | O_CLOEXEC)
      }
      if descriptor < 0 { return nil }
    }

    deinit { close(descriptor) }

    func look() -> (device: UInt64, kind: mode_t)? { Self.look(at: "", in: descriptor) }

    /// What the kernel knows by itself.
    static func look(at name: String, in folder: CInt) -> (device: UInt64, kind: mode_t)? {
      var (major, minor, mode): (UInt32, UInt32, UInt32) = (0, 0, 0)
      guard
        unsafe name.withHostBytes({ unsafe imgfs_look_without_asking(folder, $0, &major, &minor, &mode) })
          == 0
      else { return nil }
      return (ServedTree.number(major, minor), mode_t(mode) & S_IFMT)
    }

    /// What a link leads to.
    func target() -> [UInt8]? {
      var bytes = [CChar](repeating: 0, count: Int(PATH_MAX))
      let count = unsafe readlinkat(descriptor, "", &bytes, bytes.count)
      return count > 0 ? bytes.prefix(count).map { UInt8(bitPattern: $0) } : nil
    }
  }
}
