import FormatEngine
import Glibc

/// Who has which bytes of an image open for writing.
///
/// The kernel keeps pages of each file for itself, and writes them back whole: where two files show the same bytes - the disk
/// and its partitions - what was written through one would go back over what was written through the other. So only one of
/// them is open for writing at a time, by as many as want to.
final class DiskWriters: Sendable {
  private struct Writer {
    let range: Range<UInt64>
    var count: Int
  }

  private let writers = Guarded<[ObjectIdentifier: Writer]>([:])

  /// A file that is open for writing, until the object ends.
  final class Hold: Sendable {
    private let writers: DiskWriters
    private let file: ObjectIdentifier

    fileprivate init(_ writers: DiskWriters, _ file: ObjectIdentifier) {
      (self.writers, self.file) = (writers, file)
    }

    deinit {
      writers.writers.withLock { writers in
        writers[file]?.count -= 1
        if writers[file]?.count == 0 { writers[file] = nil }
      }
    }
  }

  var isAnybodyWriting: Bool { writers.withLock { !$0.isEmpty } }

  /// Throws EBUSY where another file is open for writing that shows a byte of `range`.
  func hold(_ file: DiskFile, _ range: Range<UInt64>) throws(EngineError) -> Hold {
    let key = ObjectIdentifier(file)
    try writers.withLock { (writers) throws(EngineError) in
      guard !writers.contains(where: { $0.key != key && $0.value.range.overlaps(range) }) else {
        throw EngineError(.system(errno: EBUSY), "The same bytes are open for writing in another file")
      }
      writers[key] = Writer(range: range, count: (writers[key]?.count ?? 0) + 1)
    }
    return Hold(self, key)
  }
}
