import Glibc

/// Runs programs with a library between them and the system (Tests/CHostCalls), which notes or disturbs the calls by
/// which files of one folder are read and changed.
public struct HostCalls: Sendable {
  /// What may fail: a letter each, as the library has them.
  public enum Kind: Character, Sendable, CaseIterable {
    case open = "o"
    case create = "n"
    case read = "r"
    case write = "w"
    /// copy_file_range and FICLONERANGE.
    case copy = "c"
    case allocate = "a"
    case truncate = "t"
    case flush = "s"
    case unlink = "u"
    case status = "f"
    case seek = "k"
  }

  /// A call that fails.
  public struct Fault: Sendable, CustomStringConvertible {
    /// Among those of `kinds`, from 0 on.
    public var number: Int
    public var errno: CInt
    public var kinds: [Kind]
    /// So do all after it.
    public var isForEver: Bool
    /// A write that fails is done in part.
    public var isTorn: Bool

    public init(number: Int, errno: CInt, kinds: [Kind], isForEver: Bool, isTorn: Bool = false) {
      self.number = number
      self.errno = errno
      self.kinds = kinds
      self.isForEver = isForEver
      self.isTorn = isTorn
    }

    fileprivate var text: String {
      "\(number) \(errno) \(String(kinds.map(\.rawValue))) \(isForEver ? "e" : "o")\(isTorn ? "t" : "")"
    }

    public var description: String {
      "call \(number)\(isForEver ? " and all after it" : "") of '\(String(kinds.map(\.rawValue)))' fails with \(errno)"
        + (isTorn ? ", torn" : "")
    }
  }

  /// One of the calls that were made.
  public struct Call: Sendable, CustomStringConvertible {
    public var kind: Kind
    public var description: String
    public var hasFailed: Bool
  }

  public let folder: TemporaryFolder
  private let logs: TemporaryFolder

  /// `logs`: another folder, for what is noted.
  public init(folder: TemporaryFolder, logs: TemporaryFolder) {
    self.folder = folder
    self.logs = logs
  }

  /// What came of a command.
  public struct Outcome: Sendable {
    public var result: ProcessResult
    /// Of those kinds that might have failed.
    public var calls: [Call]
    /// What was changed, in order.
    public var changes: [(name: String, event: FileEvent)]
  }

  public func run(
    _ program: BuiltProduct, _ arguments: [String], fault: Fault? = nil, disturbing seed: UInt64? = nil,
    environment: [String: String] = [:], stdin: String = "/dev/null"
  ) throws -> Outcome {
    let result = try start(
      program, arguments, fault: fault, disturbing: seed, environment: environment, stdin: stdin)
    return Outcome(result: result, calls: try calls(), changes: try changes().map { ($0.name, $0.event) })
  }

  /// Runs a program that may leave a process behind it, which is watched on.
  public func start(
    _ program: BuiltProduct, _ arguments: [String], fault: Fault? = nil, disturbing seed: UInt64? = nil,
    environment: [String: String] = [:], stdin: String = "/dev/null"
  ) throws -> ProcessResult {
    for path in [record, list] { try Files.write([], to: path) }
    var environment = environment
    environment["LD_PRELOAD"] = try BuiltProduct.hostCalls.path
    environment["IMGFS_CALLS_FOLDER"] = folder.path
    environment["IMGFS_CALLS_RECORD"] = record
    environment["IMGFS_CALLS_LIST"] = list
    if let fault { environment["IMGFS_CALLS_FAIL"] = fault.text }
    if let seed { environment["IMGFS_CALLS_DISTURB"] = "\(seed)" }
    return try TestProcess.run(
      [try program.path] + arguments, environment: environment, folder: folder.path, stdin: stdin, timeout: 60
    )
  }

  private var record: String { logs.file("record") }
  private var list: String { logs.file("list") }

  /// How long the record of changes is at this moment.
  public func recordLength() throws -> Int {
    var status = stat()
    guard unsafe stat(record, &status) == 0 else { throw TestFailure("There is no record") }
    return Int(status.st_size)
  }

  /// Those kinds of calls until now that might have failed.
  public func calls() throws -> [Call] {
    try String(decoding: Files.read(list), as: UTF8.self).split(separator: "\n").map { line in
      guard let letter = line.first, let kind = Kind(rawValue: letter) else { throw TestFailure("'\(line)'") }
      return Call(kind: kind, description: String(line), hasFailed: line.hasSuffix(" !"))
    }
  }

  /// What was changed until now, in order, and where in the record that ends.
  public func changes() throws -> [(name: String, event: FileEvent, end: Int)] {
    let bytes = try Files.read(record)
    var result: [(name: String, event: FileEvent, end: Int)] = []
    var place = 0
    func number(_ offset: Int, _ width: Int) -> Int {
      bytes[place + offset..<place + offset + width].reversed().reduce(0) { $0 << 8 | Int($1) }
    }
    while place < bytes.count {
      let (kind, nameCount, byteCount) = (number(0, 4), number(4, 4), number(24, 8))
      let (offset, count) = (number(8, 8), number(16, 8))
      let start = place + 32 + nameCount
      guard start + byteCount <= bytes.count else { throw TestFailure("The record is cut off at \(place)") }
      let name = String(decoding: bytes[place + 32..<start], as: UTF8.self)
      let event: FileEvent
      switch kind {
      case 1: event = .write(offset: offset, bytes: Array(bytes[start..<start + byteCount]))
      case 2: event = .zeros(offset: offset, count: count)
      case 3: event = .resize(offset)
      case 4: event = .flush
      case 5: event = .create
      case 6: event = .remove
      default: throw TestFailure("A record of kind \(kind)")
      }
      place = start + byteCount
      result.append((name, event, place))
    }
    return result
  }
}
