/// Which rooms of a file are in use, by pages of 32768: only pages with such a room take memory, so it grows with
/// what the map really holds, not with what a header claims.
struct VDIRoomSet {
  private var pages: [[UInt64]?] = []
  private(set) var count: UInt64 = 0
  private static let pageBits: UInt32 = 15

  init() {}

  func contains(_ room: UInt32) -> Bool {
    let page = Int(room >> Self.pageBits)
    guard page < pages.count, let words = pages[page] else { return false }
    let bit = room & (1 << Self.pageBits - 1)
    return words[Int(bit >> 6)] >> UInt64(bit & 63) & 1 != 0
  }

  /// False where it was there already.
  mutating func insert(_ room: UInt32) -> Bool { set(room, to: true) }

  mutating func remove(_ room: UInt32) { _ = set(room, to: false) }

  private mutating func set(_ room: UInt32, to isUsed: Bool) -> Bool {
    guard contains(room) != isUsed else { return false }
    let page = Int(room >> Self.pageBits)
    if page >= pages.count { pages.append(contentsOf: repeatElement(nil, count: page + 1 - pages.count)) }
    var words = pages[page] ?? [UInt64](repeating: 0, count: 1 << Int(Self.pageBits - 6))
    // The page is held once only while it changes.
    pages[page] = nil
    let bit = room & (1 << Self.pageBits - 1)
    words[Int(bit >> 6)] ^= 1 << UInt64(bit & 63)
    pages[page] = words
    if isUsed { count += 1 } else { count -= 1 }
    return true
  }

  /// The first room from `start` on that is not in use.
  func firstFree(from start: UInt32) -> UInt32 {
    var room = start
    while contains(room) { room += 1 }
    return room
  }
}
