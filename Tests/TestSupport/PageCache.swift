import Glibc

/// What the host's page cache holds of a file.
public enum PageCache {
  /// Pages of the file that are there; nil where that cannot be asked.
  public static func pageCount(of path: String) -> Int? {
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var status = stat()
    guard unsafe fstat(descriptor, &status) == 0 else { return nil }
    let size = Int(status.st_size)
    guard size > 0 else { return 0 }
    guard let map = unsafe mmap(nil, size, PROT_NONE, MAP_SHARED, descriptor, 0), unsafe map != MAP_FAILED
    else { return nil }
    defer { unsafe munmap(map, size) }
    var pages = [UInt8](repeating: 0, count: (size + 4095) / 4096)
    guard unsafe mincore(map, size, &pages) == 0 else { return nil }
    return pages.count { $0 & 1 == 1 }
  }

  /// Writes the file to disk and drops what the cache has of it.
  public static func drop(_ path: String) {
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return }
    defer { close(descriptor) }
    fsync(descriptor)
    _ = posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED)
  }
}
