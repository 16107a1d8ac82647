import FormatEngine
import TestSupport
import Testing

/// Two opens of a file in each other's way. That they are in QEMU's way too is shown with real peers
/// (`LockedImageTests`).
@Suite struct FileLockTests {
  private static let reading = LockRequest(taking: .consistentRead)
  private static let writing = LockRequest(taking: [.consistentRead, .write])
  private static let readingTables = LockRequest(
    taking: .consistentRead, sharing: [.consistentRead, .writeUnchanged])
  private static let writingTables = LockRequest(
    taking: [.consistentRead, .write, .resize], sharing: [.consistentRead, .writeUnchanged])
  private static let alone = LockRequest(taking: [], sharing: [])

  struct Meeting: Sendable, CustomTestStringConvertible {
    var first: LockRequest
    var second: LockRequest
    /// What the second is told, nil where it gets what it wants.
    var refusal: String?
    var testDescription: String { "\(first) - \(second)" }
  }

  private func withFile(_ body: (String) throws -> Void) throws {
    try TemporaryFolder.with { folder in try body(try folder.write([1, 2, 3], to: "file")) }
  }

  private func text(_ lock: String, _ path: String) -> String {
    "Failed to get \(lock) lock\nIs another process using the image [\(path)]?"
  }

  @Test(arguments: [
    Meeting(first: reading, second: reading),
    Meeting(first: reading, second: writing),
    Meeting(first: writing, second: writing),
    Meeting(first: readingTables, second: readingTables),
    Meeting(first: readingTables, second: reading),
    Meeting(first: readingTables, second: writing, refusal: "\"write\""),
    Meeting(first: readingTables, second: writingTables, refusal: "\"write\""),
    Meeting(first: writing, second: readingTables, refusal: "shared \"write\""),
    Meeting(first: writingTables, second: readingTables, refusal: "shared \"write\""),
    Meeting(first: writingTables, second: reading),
    Meeting(first: writingTables, second: .none),
    Meeting(first: .none, second: alone),
    Meeting(first: alone, second: reading, refusal: "\"consistent read\""),
    Meeting(first: reading, second: alone, refusal: "shared \"consistent read\""),
    Meeting(first: .creation, second: .creation, refusal: "\"resize\""),
    Meeting(
      first: LockRequest(taking: [.resize]), second: .creation, refusal: "shared \"resize\""),
    Meeting(
      first: LockRequest(taking: [], sharing: [.consistentRead, .write, .resize]),
      second: LockRequest(taking: .writeUnchanged), refusal: "\"write unchanged\""),
  ])
  func secondComerIsToldWhatIsInTheWay(_ meeting: Meeting) throws {
    try withFile { path in
      let first = try FileStore.open(path, access: .readWrite)
      try first.lock(meeting.first)
      let second = try FileStore.open(path, access: .readOnly)
      guard let refusal = meeting.refusal else { return try second.lock(meeting.second) }
      let error = #expect(throws: EngineError.self) { try second.lock(meeting.second) }
      #expect(error?.code == .locked && error?.text == text(refusal, path))
      // Once the first has gone the second gets it all.
      first.unlock()
      try second.lock(meeting.second)
    }
  }

  @Test func whoIsRefusedLeavesNothingBehind() throws {
    try withFile { path in
      let holder = try FileStore.open(path, access: .readWrite)
      try holder.lock(Self.readingTables)
      let refused = try FileStore.open(path, access: .readWrite)
      try refused.lock(Self.reading)
      #expect(throws: EngineError.self) { try refused.lock(Self.writingTables) }
      // Still a reader, and only that.
      try FileStore.open(path, access: .readWrite).lock(
        LockRequest(taking: .consistentRead, sharing: .consistentRead))
      #expect(throws: EngineError.self) { try FileStore.open(path, access: .readOnly).lock(Self.alone) }
    }
  }

  @Test func locksGoWithTheStore() throws {
    try withFile { path in
      try FileStore.open(path, access: .readWrite).lock(Self.writingTables)
      try FileStore.open(path, access: .readWrite).lock(Self.writingTables)
    }
  }

  @Test func aNewerOpenGoesOnFromAnOlderOne() throws {
    try withFile { path in
      var older: FileStore? = try FileStore.open(path, access: .readOnly)
      try older?.lock(Self.readingTables)
      var newer: FileStore? = try FileStore.open(path, access: .readWrite)
      try newer?.lock(Self.writingTables, continuing: older)
      let other = try FileStore.open(path, access: .readWrite)
      #expect(throws: EngineError.self) { try other.lock(Self.readingTables) }
      // The older one has only its own again.
      newer = nil
      try other.lock(Self.readingTables)
      #expect(throws: EngineError.self) { try other.lock(Self.writing) }
      other.unlock()
      // The newer one has its own, though the older one is not used any more.
      newer = try FileStore.open(path, access: .readWrite)
      try newer?.lock(Self.writingTables, continuing: older)
      older = nil
      #expect(throws: EngineError.self) { try other.lock(Self.readingTables) }
      newer = nil
      try other.lock(Self.writing)
    }
  }

  @Test func theFirstOfSeveralOpensHasTheLocksOfAll() throws {
    try withFile { path in
      let first = try FileStore.open(path, access: .readWrite)
      try first.lock(Self.writingTables)
      let second = try FileStore.open(path, access: .readOnly)
      try second.lock(Self.readingTables, continuing: first)
      let third = try FileStore.open(path, access: .readOnly)
      try third.lock(Self.readingTables, continuing: second)
      first.unlock()
      let other = try FileStore.open(path, access: .readWrite)
      try other.lock(Self.readingTables)
      #expect(throws: EngineError.self) { try other.lock(Self.writing) }
      second.unlock()
      #expect(throws: EngineError.self) { try other.lock(Self.writing) }
      third.unlock()
      try other.lock(Self.writing)
    }
  }

  @Test func aFileThatIsNotLockedIsInNobodysWay() throws {
    try withFile { path in
      let holder = try FileStore.open(path, access: .readWrite)
      try holder.lock(Self.writingTables)
      let other = try FileStore.open(path, access: .readWrite)
      try other.lock(Self.writingTables, .off)
      try other.lock(Self.alone)
    }
  }

  @Test func aNewFileIsNotEmptiedWhereItIsInUse() throws {
    try withFile { path in
      let reader = try FileStore.open(path, access: .readOnly)
      try reader.lock(Self.readingTables)
      #expect(throws: EngineError.self) { try FileStore.create(path) }
      #expect(try reader.bytes(at: 0, count: 3) == [1, 2, 3])
    }
  }
}
