import FormatEngine

/// Builds the tree of several images: a folder for each.
final class ShelfTree: Sendable {
  private let shelf: ImageShelf
  private let numbers = NodeNumbers()
  /// When the tree was mounted.
  private let time: FileTime

  init(_ shelf: ImageShelf) {
    self.shelf = shelf
    time = .now
  }

  func makeRoot() -> Node {
    let folder = Folder {
      self.shelf.scanIfDue()
    } look: { () throws(EngineError) in
      let (items, number) = self.shelf.list
      return (number, { (previous) throws(EngineError) in self.nodes(items, previous) })
    }
    return Node(
      id: NodeNumbers.root, parentID: NodeNumbers.root, name: [], time: time, content: .folder(folder))
  }

  private func nodes(_ items: [ImageShelf.Item], _ previous: Folder.Listing?) -> [Node] {
    let names = SafeName.unique(items.map { ImageName.lastComponent(of: $0.path) })
    return zip(items, names).map { item, name in
      let token = String(item.number)
      if let old = previous?.node(named: name), old.token == token { return old }
      let tree = ImageTree(item.session, numbers, mayFail: true)
      return tree.makeFolder(
        id: numbers.take(), parentID: NodeNumbers.root, name: name, token: token, time: item.stamp.modified)
    }
  }
}
