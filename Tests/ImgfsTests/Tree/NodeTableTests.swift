import Testing

@testable import imgfs

@Suite struct NodeTableTests {
  private func node(_ id: UInt64) -> Node {
    Node(
      id: id, parentID: 1, name: Array("n\(id)".utf8), time: FileTime(seconds: 0, nanoseconds: 0),
      content: .text(TextFile { [] }))
  }

  @Test func alwaysKnowsTheRoot() {
    let table = NodeTable(root: node(1))
    #expect(table.node(1)?.id == 1)
    table.forget(1, count: 1000)
    #expect(table.node(1)?.id == 1)
  }

  @Test func knowsANodeUntilItIsForgottenAsOftenAsItWasTold() {
    let table = NodeTable(root: node(1))
    let two = node(2)
    #expect(table.node(2) == nil)
    for _ in 0..<5 { table.remember(two) }
    #expect(table.forget(2, count: 4) == nil)
    #expect(table.node(2) === two)
    #expect(table.forget(2, count: 1) === two)
    #expect(table.node(2) == nil)
    #expect(table.count == 0)
  }

  @Test func takesAForgettingOfTooManyOrOfUnknownNodes() {
    let table = NodeTable(root: node(1))
    table.remember(node(2))
    #expect(table.forget(2, count: .max) != nil)
    #expect(table.forget(2, count: 1) == nil)
    #expect(table.forget(77, count: 1) == nil)
  }

  @Test func countsFromManyThreads() async {
    let table = NodeTable(root: node(1))
    let nodes = (2..<10).map { node(UInt64($0)) }
    await withTaskGroup(of: Void.self) { group in
      for _ in 0..<4 {
        group.addTask {
          for _ in 0..<1000 { for node in nodes { table.remember(node) } }
          for _ in 0..<999 { for node in nodes { table.forget(node.id, count: 1) } }
        }
      }
    }
    #expect(table.count == nodes.count)
    for node in nodes { #expect(table.forget(node.id, count: 4) === node) }
    #expect(table.count == 0)
  }
}
