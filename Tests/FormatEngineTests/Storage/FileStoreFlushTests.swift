import Synchronization
import TestSupport
import Testing

@testable import FormatEngine

/// A flush is for what was written before it; what is written while it runs is for the next one.
@Suite struct FileStoreFlushTests {
  @Test func aFlushDuringAWriteLeavesTheWriteToTheNextOne() throws {
    try TemporaryFolder.with { folder in
      let byteCount = 32 << 20
      let bytes = [UInt8](repeating: 5, count: byteCount)
      var caughtInTheAct = false
      for _ in 0..<20 where !caughtInTheAct {
        let store = try FileStore.create(folder.file("file"))
        let hasFlushedInside = Atomic<Bool>(false)
        let complaints = Threads.run(2) { number in
          do {
            if number == 0 {
              try store.write(bytes: bytes, at: 0)
            } else {
              while try store.byteCount() == 0 {}
              let isInside = try store.byteCount() < UInt64(byteCount) / 2
              try store.flush()
              hasFlushedInside.store(isInside, ordering: .relaxed)
            }
          } catch { return "\(error)" }
          return nil
        }
        #expect(complaints.isEmpty)
        caughtInTheAct = hasFlushedInside.load(ordering: .relaxed)
        if caughtInTheAct { #expect(store.isUnsynced) }
      }
      #expect(caughtInTheAct)
    }
  }

  @Test func aFlushOfAllLeavesNothing() throws {
    try TemporaryFolder.with { folder in
      let store = try FileStore.create(folder.file("file"))
      try store.write(bytes: [1], at: 0)
      #expect(store.isUnsynced)
      try store.flush()
      #expect(!store.isUnsynced)
      store.noteWrite()
      #expect(store.isUnsynced)
    }
  }
}
