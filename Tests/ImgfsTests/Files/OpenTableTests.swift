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
}
