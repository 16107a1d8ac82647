import Glibc

/// Whether a file is locked.
public enum LockMode: Sendable {
  /// Where its file system has such locks.
  case auto
  /// It must be.
  case on
  case off
}

/// The locks of an open file, by which this program, QEMU's programs and running virtual machines keep out of
/// each other's way. The scheme is QEMU's: a lock for reading on single bytes,
///
///     100 + n   by everyone who takes permission n (the bits of `FilePermissions`)
///     200 + n   by everyone who does not let others have it
///
/// and whoever takes a permission looks whether somebody else has the other byte. There need not be such bytes in the
/// file, and nothing is written to them.
///
/// The locks belong to the open file, not to the process: they go when its descriptor is closed, and a file that one
/// process opens twice can be in its own way, as it should.
final class FileLock: Sendable {
  private struct State {
    /// What is asked for, by those who do: this open of the file, and newer ones that go on from it.
    var claims: [ObjectIdentifier: LockRequest] = [:]
    /// The open of the same file that has the locks for this one.
    var older: FileStore?
    var mode = LockMode.auto

    /// What is locked.
    var held: LockRequest {
      claims.values.reduce(into: LockRequest.none) {
        $0.taken.formUnion($1.taken)
        $0.shared.formIntersection($1.shared)
      }
    }
  }

  private let descriptor: CInt
  /// Held while system calls that do not wait look at the locks. Before that of an older open.
  private let state = Guarded(State())

  /// `descriptor` stays open as long as this is there.
  init(descriptor: CInt) { self.descriptor = descriptor }

  /// Adds what `request` asks for to what was asked for before. Where somebody else is in the way it throws
  /// `locked`, in QEMU's words, and holds what it held before.
  ///
  /// `mode`: nil leaves it as it is. `older`: the same file as it was opened before. What that holds is no obstacle,
  /// and it goes on holding it.
  func take(_ request: LockRequest, _ mode: LockMode?, path: String, continuing older: FileStore?)
    throws(EngineError)
  {
    try state.withLock { (state) throws(EngineError) in
      if let mode { state.mode = mode }
      guard state.mode != .off else { return }
      let mode = state.mode
      if state.older == nil, let older, older.locks !== self {
        // The first of several opens has the locks of all.
        state.older = older.locks.state.withLock { $0.older } ?? older
      }
      let claimant = ObjectIdentifier(self)
      if let older = state.older {
        try older.locks.state.withLock { (state) throws(EngineError) in
          try older.locks.add(request, of: claimant, to: &state, mode, path)
        }
      } else {
        try add(request, of: claimant, to: &state, mode, path)
      }
    }
  }

  /// Lets go of what this open of the file asked for.
  func release(path: String) {
    state.withLock { state in
      let claimant = ObjectIdentifier(self)
      if let older = state.older {
        older.locks.state.withLock { older.locks.remove(claimant, from: &$0, path) }
        state.older = nil
      } else {
        remove(claimant, from: &state, path)
      }
    }
  }

  private func add(
    _ request: LockRequest, of claimant: ObjectIdentifier, to state: inout State, _ mode: LockMode,
    _ path: String
  ) throws(EngineError) {
    let held = state.held
    let added = LockRequest(
      taking: request.taken.subtracting(held.taken),
      sharing: FilePermissions.all.subtracting(request.unshared.subtracting(held.unshared)))
    if added != .none {
      do throws(EngineError) {
        guard try lock(added, mode, path) else { return }
        try look(for: request, path)
      } catch {
        unlock(added)
        throw error
      }
      Trace.emit(.fileLock, fields(added, path))
    }
    var claim = state.claims[claimant] ?? .none
    claim.taken.formUnion(request.taken)
    claim.shared.formIntersection(request.shared)
    state.claims[claimant] = claim
  }

  private func remove(_ claimant: ObjectIdentifier, from state: inout State, _ path: String) {
    let before = state.held
    guard state.claims.removeValue(forKey: claimant) != nil else { return }
    let after = state.held
    let ended = LockRequest(
      taking: before.taken.subtracting(after.taken), sharing: before.shared.union(after.unshared))
    guard ended != .none else { return }
    unlock(ended)
    Trace.emit(.fileUnlock, fields(ended, path))
  }

  private static let takenStart = 100
  private static let unsharedStart = 200

  private static func bytes(of request: LockRequest) -> [Int] {
    request.taken.numbers.map { takenStart + $0 } + request.unshared.numbers.map { unsharedStart + $0 }
  }

  /// False where the file system has no locks and none are needed.
  private func lock(_ request: LockRequest, _ mode: LockMode, _ path: String) throws(EngineError) -> Bool {
    for byte in Self.bytes(of: request) where set(F_RDLCK, byte) != 0 {
      // Somebody's lock for writing, which is none of this scheme.
      let isHeld = errno == EAGAIN || errno == EACCES
      if !isHeld && mode == .auto { return false }
      throw EngineError(.locked, "Failed to lock byte \(byte)", path: path)
    }
    return true
  }

  private func unlock(_ request: LockRequest) {
    for byte in Self.bytes(of: request) { _ = set(F_UNLCK, byte) }
  }

  private func look(for request: LockRequest, _ path: String) throws(EngineError) {
    for number in request.taken.numbers where isLockedByOthers(Self.unsharedStart + number) {
      throw EngineError.lockRefused("\"\(FilePermissions.names[number])\"", path)
    }
    for number in request.unshared.numbers where isLockedByOthers(Self.takenStart + number) {
      throw EngineError.lockRefused("shared \"\(FilePermissions.names[number])\"", path)
    }
  }

  /// As events tell it: what the open takes, and what it keeps from others.
  private func fields(_ request: LockRequest, _ path: String) -> String {
    func names(_ permissions: FilePermissions) -> String {
      "\"" + permissions.numbers.map { FilePermissions.names[$0] }.joined(separator: ", ") + "\""
    }
    return
      "path \"\(path)\" fd \(descriptor) taken \(names(request.taken)) unshared \(names(request.unshared))"
  }

  // MARK: System calls

  // <fcntl.h> hides them behind _GNU_SOURCE.
  private static let getLock: CInt = 36
  private static let setLock: CInt = 37

  private func set(_ type: CInt, _ byte: Int) -> CInt {
    var lock = Self.record(type, byte)
    return retrying { unsafe fcntl(descriptor, Self.setLock, &lock) }
  }

  /// Whether a lock for writing would meet somebody else's. Where that cannot be found out nobody is there.
  private func isLockedByOthers(_ byte: Int) -> Bool {
    var lock = Self.record(F_WRLCK, byte)
    return unsafe fcntl(descriptor, Self.getLock, &lock) == 0 && CInt(lock.l_type) != F_UNLCK
  }

  private static func record(_ type: CInt, _ byte: Int) -> flock {
    flock(l_type: Int16(type), l_whence: Int16(SEEK_SET), l_start: off_t(byte), l_len: 1, l_pid: 0)
  }
}

extension EngineError {
  /// Somebody else has the file open. `lock`: QEMU's name of the permission that was not to be had.
  public static func lockRefused(_ lock: String, _ path: String) -> EngineError {
    var error = EngineError(.locked, "Failed to get \(lock) lock", path: path)
    error.additions = ["Is another process using the image [\(path)]?"]
    return error
  }
}
