import Glibc
import TestSupport
import Testing

@testable import FormatEngine

/// The end of a long run of data is looked for once, not at every step through it; unless the file has changed.
@Suite struct KnownDataTests {
  private func remembered(_ store: FileStore, from offset: UInt64) throws -> UInt64? {
    let status = try store.descriptor.status()
    return store.knownData.withLock { $0.length(from: offset, status) }
  }

  @Test func aLongRunIsKnownUntilSomebodyChangesTheFile() throws {
    try TemporaryFolder.with { folder in
      let path = folder.file("disk")
      let other = try FileStore.create(path)
      try other.write(bytes: [UInt8](repeating: 7, count: 1 << 20), at: 0)
      try other.resize(to: 3 << 20)
      let store = try FileStore.open(path, access: .readOnly)
      #expect(try remembered(store, from: 0) == nil)
      #expect(try store.run(at: 0, limit: 65536) == StoredRun(isData: true, length: 65536))
      #expect(try remembered(store, from: 65536) == (1 << 20) - 65536)
      #expect(try store.run(at: 65536, limit: 4096) == StoredRun(isData: true, length: 4096))
      #expect(try store.run(at: 65536, limit: 1 << 30) == StoredRun(isData: true, length: (1 << 20) - 65536))
      #expect(try store.run(at: 1 << 20, limit: 4096) == StoredRun(isData: false, length: 4096))

      // Longer than the steps of older systems' clocks.
      usleep(20_000)
      try other.writeZeros(at: 128 << 10, count: 128 << 10, freeing: true)
      #expect(try remembered(store, from: 0) == nil, "what was data may be a hole now")
      #expect(try store.run(at: 65536, limit: 1 << 20) == StoredRun(isData: true, length: 65536))
      #expect(try store.run(at: 128 << 10, limit: 1 << 20) == StoredRun(isData: false, length: 128 << 10))
    }
  }

  @Test func ownHolesAreSeenAtOnce() throws {
    try TemporaryFolder.with { folder in
      let store = try FileStore.create(folder.file("disk"))
      try store.write(bytes: [UInt8](repeating: 7, count: 1 << 20), at: 0)
      for _ in 0..<20 {
        try store.write(bytes: [UInt8](repeating: 7, count: 65536), at: 65536)
        #expect(try store.run(at: 0, limit: 4096).isData)
        try store.writeZeros(at: 65536, count: 65536, freeing: true)
        #expect(try store.run(at: 65536, limit: 4096) == StoredRun(isData: false, length: 4096))
      }
    }
  }

  /// A run that was given as a whole is not asked for again.
  @Test func shortRunsAreNotKept() throws {
    try TemporaryFolder.with { folder in
      let store = try FileStore.create(folder.file("disk"))
      try store.write(bytes: [UInt8](repeating: 7, count: 65536), at: 0)
      #expect(try store.run(at: 0, limit: 65536).length == 65536)
      #expect(try remembered(store, from: 0) == nil)
      try store.resize(to: 1 << 20)
      #expect(try store.run(at: 0, limit: 1 << 20).length == 65536)
      #expect(try remembered(store, from: 0) == nil)
    }
  }
}
