import Glibc

/// Counts what tests have tried - power cuts, faults, command lines - for whoever adds it up: a line with the count, a tab
/// and the kind for each call, at the end of the file that IMGFS_TEST_COUNTS names. Nothing is counted where it names none.
public enum Tally {
  public static func add(_ kind: String, _ count: Int) {
    guard count > 0, let path = unsafe getenv("IMGFS_TEST_COUNTS") else { return }
    let descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { return }
    defer { close(descriptor) }
    // One write: processes that count beside each other do not get into each other's lines.
    let line = Array("\(count)\t\(kind)\n".utf8)
    _ = unsafe line.withUnsafeBytes { bytes in unsafe write(descriptor, bytes.baseAddress, bytes.count) }
  }
}
