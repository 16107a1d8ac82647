import Synchronization

/// A file or folder that somebody has open.
enum OpenFile: Sendable {
  case disk(OpenDisk)
  case text([UInt8])
  /// What it held when it was opened, or gone back to the beginning of.
  case folder(Folder.Listing)
}

/// The open files by handle. A handle is a place in the table, free again when its file is closed.
final class OpenTable: Sendable {
  private struct Place {
    var file: OpenFile
    /// The file's number in the tree.
    var id: UInt64
    /// Of a file that is open for writing.
    var hold: DiskWriters.Hold?
    /// Whether bytes past the file's end were refused, and its writer does not know it yet.
    var isOverrun = false
  }

  private struct State {
    var places: [Place?] = []
    var free: [Int] = []
  }

  private let state = Mutex(State())

  func insert(_ file: OpenFile, of id: UInt64, _ hold: DiskWriters.Hold? = nil) -> UInt64 {
    state.withLock { state in
      let new = Place(file: file, id: id, hold: hold)
      if let place = state.free.popLast() {
        state.places[place] = new
        return UInt64(place)
      }
      state.places.append(new)
      return UInt64(state.places.count - 1)
    }
  }

  /// The file behind a handle, or nil where there is none.
  subscript(_ handle: UInt64) -> OpenFile? {
    state.withLock { state in
      guard let place = Int(exactly: handle), place < state.places.count else { return nil }
      return state.places[place]?.file
    }
  }

  /// Puts another file behind a handle that is there.
  func replace(_ handle: UInt64, _ file: OpenFile) {
    let old = state.withLock { state -> OpenFile? in
      guard let place = Int(exactly: handle), place < state.places.count, let old = state.places[place]
      else { return nil }
      state.places[place]?.file = file
      return old.file
    }
    withExtendedLifetime(old) {}
  }

  func remove(_ handle: UInt64) {
    let removed = state.withLock { state -> Place? in
      guard let place = Int(exactly: handle), place < state.places.count, let old = state.places[place]
      else { return nil }
      state.places[place] = nil
      state.free.append(place)
      return old
    }
    // What ends with it ends outside of the lock: that may take long, and takes other locks.
    withExtendedLifetime(removed) {}
  }

  /// The numbers of the files that somebody may write and of which `isMeant` is true, each once.
  func written(_ isMeant: (OpenFile) -> Bool) -> [UInt64] {
    state.withLock { state in
      var ids: [UInt64] = []
      for case let place? in state.places where place.hold != nil {
        if !ids.contains(place.id) && isMeant(place.file) { ids.append(place.id) }
      }
      return ids
    }
  }

  /// All who write a file of which `isMeant` is true have to hear that it ends before what they wrote.
  func noteOverrun(of isMeant: (OpenFile) -> Bool) {
    state.withLock { state in
      for index in state.places.indices {
        if let place = state.places[index], place.hold != nil, isMeant(place.file) {
          state.places[index]?.isOverrun = true
        }
      }
    }
  }

  /// Whether that was so; it is so no more.
  func takeOverrun(_ handle: UInt64) -> Bool {
    state.withLock { state in
      guard let place = Int(exactly: handle), place < state.places.count,
        state.places[place]?.isOverrun == true
      else { return false }
      state.places[place]?.isOverrun = false
      return true
    }
  }

  /// How many files are open.
  var count: Int { state.withLock { $0.places.count - $0.free.count } }
}
