import Glibc

/// How many cases a test has gone through, for whoever adds them up.
public enum Tally {
  /// Appends `count<TAB>kind` to the file that IMGFS_TEST_COUNTS names; nothing where it is not set.
  public static func add(_ kind: String, _ count: Int) {
    guard let path = unsafe getenv("IMGFS_TEST_COUNTS") else { return }
    let descriptor = unsafe open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0o666)
    guard descriptor >= 0 else { return }
    // One write, which O_APPEND keeps apart from those of other processes.
    let line = Array("\(count)\t\(kind)\n".utf8)
    _ = unsafe line.withUnsafeBytes { unsafe write(descriptor, $0.baseAddress, $0.count) }
    close(descriptor)
  }
}
