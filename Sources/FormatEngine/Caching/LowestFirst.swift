/// Numbers, taken out lowest first: a binary heap.
struct LowestFirst {
  private var heap: [UInt64] = []

  var lowest: UInt64? { heap.first }

  mutating func insert(_ number: UInt64) {
    heap.append(number)
    var child = heap.count - 1
    while child > 0, heap[child] < heap[(child - 1) / 2] {
      heap.swapAt(child, (child - 1) / 2)
      child = (child - 1) / 2
    }
  }

  mutating func popLowest() -> UInt64? {
    guard let lowest = heap.first, let last = heap.popLast() else { return nil }
    guard !heap.isEmpty else { return lowest }
    heap[0] = last
    var parent = 0
    while true {
      var least = parent
      for child in [2 * parent + 1, 2 * parent + 2] where child < heap.count && heap[child] < heap[least] {
        least = child
      }
      if least == parent { return lowest }
      heap.swapAt(parent, least)
      parent = least
    }
  }
}
