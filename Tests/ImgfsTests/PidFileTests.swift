import FormatEngine
import Glibc
import TestSupport
import Testing

@testable import imgfs

@Suite struct PidFileTests {
  /// A file system gives the number of a file that is gone to the next one: as long as somebody may take that for his own, it is
  /// not gone.
  @Test func fileOfAnotherProcessStays() throws {
    try TemporaryFolder.with { folder in
      let path = folder.file("pid")
      for _ in 0..<50 {
        let first = try PidFile(path, process: 11)
        #expect(unsafe unlink(path) == 0)
        let second = try PidFile(path, process: 12)
        first.remove()
        #expect(try folder.names() == ["pid"])
        second.remove()
        #expect(try folder.names() == [])
      }
      #expect(folder.openFiles() == [])
    }
  }
}
