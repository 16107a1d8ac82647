import FormatEngine

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
    var isForWriting: Bool
    /// Of a disk that is open for writing.
    var hold: DiskWriters.Hold?
    /// Whether bytes past the file's end were refused, and its writer does not know it yet.
    var isOverrun = false
    /// Until then, in seconds of the monotonic clock, its writer may be the one who writes past the end.
    var suspectedUntil = -Double.infinity
    /// Whether it has asked for attributes since bytes were refused last.
    var hasAsked = false
  }

  private struct State {
    var places: [Place?] = []
    var free: [Int] = []
    /// The numbers of files that were given their size again since bytes were refused last.
    var corrected: Set<UInt64> = []
  }

  private let state = Guarded(State())

  func insert(
    _ file: OpenFile, of id: UInt64, forWriting: Bool = false, _ hold: DiskWriters.Hold? = nil
  ) -> UInt64 {
    state.withLock { state in
      let new = Place(file: file, id: id, isForWriting: forWriting, hold: hold)
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

  /// Seconds for which those who write a file ask before each write, once bytes past its end were refused.
  private static let suspicionSeconds = 60.0

  /// Bytes past the end of a file were refused. Which of its writers wrote them the kernel does not say: it names the one
  /// that opened the file last. Where there is one, it is he. Of several it is he who alone has asked for attributes since
  /// the last time, if the file had its size again meanwhile: all of them ask before each write from then on.
  func noteOverrun(of id: UInt64) {
    state.withLock { state in
      let writers = state.places.indices.filter {
        state.places[$0]?.id == id && state.places[$0]?.isForWriting == true
      }
      let isCorrected = state.corrected.remove(id) != nil
      var meant = writers
      if writers.count > 1 {
        let haveToAsk = writers.allSatisfy { isSuspected(state.places[$0]) }
        // Written before the file had its size again, as what was refused last.
        if haveToAsk && !isCorrected { return }
        meant = haveToAsk ? writers.filter { state.places[$0]?.hasAsked == true } : []
      }
      let until = HostClock.steadySeconds + Self.suspicionSeconds
      for index in writers {
        state.places[index]?.hasAsked = false
        state.places[index]?.suspectedUntil = until
      }
      if meant.count == 1 { state.places[meant[0]]?.isOverrun = true }
    }
  }

  private func isSuspected(_ place: Place?) -> Bool {
    place.map { $0.suspectedUntil > HostClock.steadySeconds } ?? false
  }

  /// A file has its size again.
  func noteCorrection(of id: UInt64) { _ = state.withLock { $0.corrected.insert(id) } }

  /// What a question for attributes is answered with.
  enum Attention {
    case none
    /// Its writer has to hear that the file ends before what he wrote.
    case overrun
    /// The next write is to ask again.
    case suspected
  }

  /// To be called when somebody asks for attributes by a handle. An overrun is told once.
  func attention(to handle: UInt64) -> Attention {
    state.withLock { state in
      guard let index = Int(exactly: handle), index < state.places.count, let place = state.places[index],
        place.isForWriting
      else { return .none }
      if place.isOverrun {
        state.places[index]?.isOverrun = false
        return .overrun
      }
      guard isSuspected(place) else { return .none }
      state.places[index]?.hasAsked = true
      return .suspected
    }
  }

  /// How many files are open.
  var count: Int { state.withLock { $0.places.count - $0.free.count } }
}
