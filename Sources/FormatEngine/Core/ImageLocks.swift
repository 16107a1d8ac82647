/// Who else may change an image while it is open.
public enum Sharing: Sendable {
  /// Whoever its format can bear: nobody where it has tables, anybody where it is a disk as it is.
  case asFormatAllows
  /// Nobody: for copies and mounts, which want one state of the disk.
  case readersOnly
  /// Anybody, who may find it in any state: only for reading.
  case anybody
}

/// Locks the files of one image, by what they are to it.
public struct ImageLocks: Sendable {
  /// What the image itself asks for. Its files ask for what follows from that.
  var request: LockRequest
  var isForced = false
  var mode = LockMode.auto
  /// What the image has locked. It may name a file more than once.
  private(set) var files = LockedFiles()
  /// What an older open of the same image has locked.
  var older: [LockedFiles] = []
  /// The file that several members of the chain lie in.
  private var shared: FileStore?

  /// Of whom nobody takes notice.
  public static let none = ImageLocks(request: .none, mode: .off)

  /// What a command that opens an image like this asks for.
  init(_ options: OpenOptions, access: FileAccess) {
    var taken: FilePermissions = options.readsContent ? .consistentRead : []
    if access == .readWrite { taken.insert(.write) }
    if access == .readWrite && options.changesSize { taken.insert(.resize) }
    request = LockRequest(taking: taken)
    if options.sharing == .readersOnly { request.shared = [.consistentRead, .writeUnchanged] }
    isForced = options.sharing == .anybody
  }

  private init(request: LockRequest, mode: LockMode) {
    self.request = request
    self.mode = mode
  }

  /// What the image below `member` asks for.
  func forBacking(of member: ChainMember) -> ImageLocks {
    var locks = self
    locks.request = request.forBacking()
    locks.files = LockedFiles()
    locks.older = []
    // Several disks of one file, of which the options tell which is meant.
    let isSameFile = member.layer.backing?.options.isEmpty == false
    locks.shared = isSameFile ? member.file.hostFile : nil
    return locks
  }

  /// What an image asks for whose disk is a file of this one. It is closed after this one.
  func forInner(access: FileAccess) -> ImageLocks {
    var locks = self
    // What lies in the disk may well have tables.
    locks.request = request.forFile(holding: .tables, access: access)
    locks.files = LockedFiles()
    return locks
  }

  /// With what the options of a node say of it.
  func changed(by common: OptionValues, access: FileAccess) throws(EngineError) -> ImageLocks {
    var locks = self
    if let isForced = common.flag("force-share") { locks.isForced = isForced }
    guard !locks.isForced || access == .readOnly else {
      throw .invalid("force-share=on can only be used with read-only images")
    }
    return locks
  }

  /// Locks a file of the image, before anything is read from it that others must not change. What only follows from
  /// the use of the whole chain is left to `LockedFiles.complete`, as in QEMU: it matters for the words of errors.
  public func lock(_ file: FileStore, holding content: FileContent, access: FileAccess) throws(EngineError) {
    let same = shared?.identity == file.identity ? shared : nil
    let older = same ?? ([files] + older).lazy.compactMap { $0[file.identity] }.first
    var wanted = request.forFile(holding: content, access: access)
    var first = LockRequest(taking: request.taken.intersection(.consistentRead))
      .forFile(holding: content, access: access)
    if content != .tables { first.taken = [] }
    if isForced { (wanted.shared, first.shared) = (.all, .all) }
    try file.lock(first, mode, continuing: older)
    files.insert(file, wanted: wanted)
  }
}

/// The files of an image that are locked. One that it names twice is there twice.
final class LockedFiles: Sendable {
  private struct Entry {
    let file: FileStore
    /// What it is locked for once the chain is whole.
    let wanted: LockRequest
  }

  private struct State {
    var entries: [Entry] = []
    /// The first open of each.
    var first: [HostFiles.Identity: FileStore] = [:]
  }

  private let state = Guarded(State())

  /// The first open of a file.
  subscript(identity: HostFiles.Identity) -> FileStore? { state.withLock { $0.first[identity] } }

  func insert(_ file: FileStore, wanted: LockRequest) {
    state.withLock { state in
      state.entries.append(Entry(file: file, wanted: wanted))
      if state.first[file.identity] == nil { state.first[file.identity] = file }
    }
  }

  func complete() throws(EngineError) {
    for entry in state.withLock({ $0.entries }) { try entry.file.lock(entry.wanted) }
  }

  func unlock() { state.withLock { state in state.entries.forEach { $0.file.unlock() } } }
}

extension LockMode {
  /// As the option `locking` has it.
  init(_ text: String?) {
    switch text {
    case "on": self = .on
    case "off": self = .off
    default: self = .auto
    }
  }
}
