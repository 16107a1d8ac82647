import Synchronization

/// A file that somebody has open.
enum OpenFile: Sendable {
  case disk(OpenDisk)
  case text([UInt8])
}

/// The open files by handle. A handle is a place in the table, free again when its file is closed.
final class OpenTable: Sendable {
  private struct State {
    var places: [OpenFile?] = []
    var free: [Int] = []
  }

  private let state = Mutex(State())

  func insert(_ file: OpenFile) -> UInt64 {
    state.withLock { state in
      if let place = state.free.popLast() {
        state.places[place] = file
        return UInt64(place)
      }
      state.places.append(file)
      return UInt64(state.places.count - 1)
    }
  }

  /// The file behind a handle, or nil where there is none.
  subscript(_ handle: UInt64) -> OpenFile? {
    state.withLock { state in
      guard let place = Int(exactly: handle), place < state.places.count else { return nil }
      return state.places[place]
    }
  }

  func remove(_ handle: UInt64) {
    state.withLock { state in
      guard let place = Int(exactly: handle), place < state.places.count, state.places[place] != nil
      else { return }
      state.places[place] = nil
      state.free.append(place)
    }
  }

  /// How many files are open.
  var count: Int { state.withLock { $0.places.count - $0.free.count } }
}
