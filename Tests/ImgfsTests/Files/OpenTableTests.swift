import Testing

@testable import imgfs

@Suite struct OpenTableTests {
  private func content(_ file: OpenFile?) -> [UInt8]? {
    if case .text(let text)? = file { text } else { nil }
  }

  @Test func findsFilesByHandleUntilTheyAreClosed() {
    let table = OpenTable()
    let first = table.insert(.text([1]), of: 1)
    let second = table.insert(.text([2]), of: 2)
    #expect(content(table[first]) == [1])
    #expect(content(table[second]) == [2])
    table.remove(first)
    #expect(table[first] == nil)
    #expect(content(table[second]) == [2])
    #expect(table.count == 1)
  }

  @Test func usesFreePlacesAgainEachOnce() {
    let table = OpenTable()
    let first = table.insert(.text([1]), of: 1)
    table.remove(first)
    table.remove(first)
    let handles = [table.insert(.text([2]), of: 2), table.insert(.text([3]), of: 3)]
    #expect(Set(handles).count == 2)
    #expect(handles.contains(first))
  }

  @Test func refusesHandlesThatItNeverGave() {
    let table = OpenTable()
    #expect(table[0] == nil)
    #expect(table[.max] == nil)
    table.remove(.max)
    #expect(table.count == 0)
  }

  private func isOverrun(_ table: OpenTable, _ handle: UInt64) -> Bool {
    if case .overrun = table.attention(to: handle) { true } else { false }
  }

  @Test func tellsTheOnlyWriterOnce() {
    let table = OpenTable()
    let reader = table.insert(.text([]), of: 1)
    let writer = table.insert(.text([]), of: 1, forWriting: true)
    let other = table.insert(.text([]), of: 2, forWriting: true)
    table.noteOverrun(of: 1)
    #expect(!isOverrun(table, reader) && !isOverrun(table, other))
    #expect(isOverrun(table, writer))
    #expect(!isOverrun(table, writer))
  }

  @Test func ofSeveralWritersTellsOnlyWhoWentOn() {
    let table = OpenTable()
    let endless = table.insert(.text([]), of: 1, forWriting: true)
    let idle = table.insert(.text([]), of: 1, forWriting: true)
    table.noteOverrun(of: 1)
    #expect(!isOverrun(table, endless) && !isOverrun(table, idle))
    // What is refused before the file has its size again was written before.
    table.noteOverrun(of: 1)
    table.noteCorrection(of: 1)
    // Both were asking: nobody knows.
    table.noteOverrun(of: 1)
    #expect(!isOverrun(table, endless))
    table.noteCorrection(of: 1)
    table.noteOverrun(of: 1)
    #expect(!isOverrun(table, idle))
    #expect(isOverrun(table, endless))
  }
}
