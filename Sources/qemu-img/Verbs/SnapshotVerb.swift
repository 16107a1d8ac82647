import CommandLine
import FormatEngine

/// `snapshot`: lists, makes, goes back to and deletes internal snapshots.
enum SnapshotVerb {
  static let verb = Verb(
    "snapshot", "lists, makes, goes back to and deletes internal snapshots",
    [
      .may(.object), .may(.imageOptions), .may(.format), .may(.forceShare), .may(.quiet),
      .oneOf([
        .may(OptionRule("list", "l", help: "lists the snapshots")),
        .may(
          OptionRule(
            "apply", "a", takes: ArgumentValue("snapshot"), help: "gives the disk the content it had then")),
        .may(
          OptionRule(
            "create", "c", takes: ArgumentValue("snapshot"), help: "makes a snapshot of what the disk holds")),
        .may(OptionRule("delete", "d", takes: ArgumentValue("snapshot"), help: "deletes the snapshot")),
      ]), .fileName,
    ], run: run)

  private enum Action {
    case list
    case create(String)
    case apply(String)
    case delete(String)
  }

  static func run(_ arguments: [String]) throws(VerbFailure) -> CInt {
    let parsed = OptionParser.parse(arguments, verb.options)
    var image = ImageArguments()
    var options = OpenOptions(access: .readWrite)
    var actions: [Action] = []
    for option in parsed.options {
      switch option.key {
      case "help": return verb.showHelp()
      case "list": actions.append(.list)
      case "apply": actions.append(.apply(option.value))
      case "create": actions.append(.create(option.value))
      case "delete": actions.append(.delete(option.value))
      case "quiet": break
      default: try image.take(option)
      }
    }
    if actions.count > 1 { throw .usage("Cannot mix '-l', '-a', '-c', '-d'") }
    guard parsed.operands.count == 1 else { throw .usage("Expecting one image file name") }
    let name = parsed.operands[0]
    // Without an action there is only the image to be opened, as with qemu-img.
    if case .list? = actions.first { options.access = .readOnly }
    let chain = try image.open(name, options)
    // What began is done as a whole; a signal in its middle waits for that.
    if chain.isWritable { Interruption.endsWork() }
    if let action = actions.first {
      try Interruption.closing(chain) { () throws(VerbFailure) in try perform(action, on: chain) }
      try attempt { () throws(EngineError) in try chain.close() }
    }
    return 0
  }

  private static func perform(_ action: Action, on chain: ImageChain) throws(VerbFailure) {
    switch action {
    case .list: try list(chain)
    case .create(let name): try create(name, in: chain)
    case .apply(let name): try apply(name, to: chain)
    case .delete(let name): try delete(name, of: chain)
    }
  }

  private static func list(_ chain: ImageChain) throws(VerbFailure) {
    guard let keeper = chain.top as? any SnapshotKeeping else { return }
    // qemu-img reads the list when it opens the image.
    let snapshots = try attempt("Could not open '\(chain.members[0].name)': ") { () throws(EngineError) in
      try keeper.shownSnapshots()
    }
    if !snapshots.isEmpty { InfoText.writeSnapshotList(snapshots) { Console.write($0 + "\n") } }
  }

  private static func create(_ name: String, in chain: ImageChain) throws(VerbFailure) {
    let identities = try SourceDate.identities()
    try attempt("Could not create snapshot '\(name)': ") { () throws(EngineError) in
      guard let keeper = chain.top as? any SnapshotChanging else {
        throw .unsupported("Operation not supported")
      }
      do throws(EngineError) {
        try chain.changingWhole { () throws(EngineError) in
          _ = try keeper.createSnapshot(named: name, at: identities.now)
        }
      } catch { throw error.inSystemWords }
    }
  }

  /// By id, or else by name.
  private static func apply(_ name: String, to chain: ImageChain) throws(VerbFailure) {
    try attempt("Could not apply snapshot '\(name)': ") { () throws(EngineError) in
      guard let keeper = chain.top as? any SnapshotChanging else {
        throw .unsupported("Block driver does not support snapshots")
      }
      guard let record = try SnapshotChoice.idOrName(name).choose(from: keeper.snapshots()) else {
        throw EngineError(.notFound, "Failed to load snapshot: No such file or directory")
      }
      try chain.changingWhole { () throws(EngineError) in try keeper.applySnapshot(record) }
    }
  }

  /// By name only, as qemu-img has it: so nothing is deleted by a number that was meant as a name.
  private static func delete(_ name: String, of chain: ImageChain) throws(VerbFailure) {
    try attempt("Could not delete snapshot '\(name)': ") { () throws(EngineError) in
      guard let keeper = chain.top as? any SnapshotChanging,
        let record = try SnapshotChoice.exactly(id: nil, name: name).choose(from: keeper.snapshots())
      else { throw EngineError(.notFound, "snapshot not found") }
      try chain.changingWhole { () throws(EngineError) in try keeper.deleteSnapshot(record) }
    }
  }
}
