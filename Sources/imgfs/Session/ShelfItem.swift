import FormatEngine
import Synchronization

extension ImageShelf {
  /// An image on the shelf, for as long as its file is the same.
  final class Item: Sendable {
    /// Another one than that of any other item.
    let number: UInt64
    let session: ImageSession
    /// The file when the item was put on the shelf.
    let stamp: FileStamp
    private let place: Place
    /// Whether it was said that it could not be closed.
    let hasComplained = Atomic<Bool>(false)

    /// Where the file of an item is: it may get another name.
    final class Place: Sendable {
      let path: Guarded<String>

      init(_ path: String) { self.path = Guarded(path) }
    }

    init(_ number: UInt64, _ place: Place, _ stamp: FileStamp, _ session: ImageSession) {
      (self.number, self.place, self.stamp, self.session) = (number, place, stamp, session)
    }

    var path: String { place.path.withLock { $0 } }

    /// Returns whether the path was another one.
    func move(to path: String) -> Bool {
      place.path.withLock { old in
        defer { old = path }
        return old != path
      }
    }

    /// Whether the file that was found at `path` is the one that this item shows.
    func stands(for found: FileStamp, at path: String) -> Bool {
      let sight = session.sight
      let shown = sight.stamp ?? stamp
      if shown == found { return true }
      guard shown.isSameFile(as: found) else { return false }
      // What is open may be written by this very mount, and may have been when the file was looked at.
      if sight.isOpen { return true }
      let now = ShelfScanner.stamp(at: path)
      return session.sight != sight || shown == now
    }
  }

  /// The items that there are, to find those whose files are there still. Each is found once.
  struct KnownItems {
    private struct File: Hashable {
      let device: UInt64
      let inode: UInt64

      init(_ stamp: FileStamp) { (device, inode) = (stamp.device, stamp.inode) }
    }

    private let byPath: [String: [Item]]
    private let byFile: [File: [Item]]
    private var taken: Set<UInt64> = []

    init(_ items: [Item]) {
      byPath = Dictionary(grouping: items, by: \.path)
      byFile = Dictionary(grouping: items) { File($0.session.sight.stamp ?? $0.stamp) }
    }

    /// The item of a file that has kept its name.
    mutating func take(at found: ShelfScanner.Found) -> Item? { take(byPath[found.path] ?? [], found) }

    /// The item of a file, whatever name it had.
    mutating func take(anywhere found: ShelfScanner.Found) -> Item? {
      take(byFile[File(found.stamp)] ?? [], found)
    }

    private mutating func take(_ items: [Item], _ found: ShelfScanner.Found) -> Item? {
      let item = items.first { item in
        !taken.contains(item.number) && !item.session.hasEnded
          && item.stands(for: found.stamp, at: found.path)
      }
      if let item { taken.insert(item.number) }
      return item
    }
  }
}
