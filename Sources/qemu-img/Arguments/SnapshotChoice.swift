import FormatEngine

/// Which internal snapshot a command line means.
enum SnapshotChoice {
  case idOrName(String)
  case exactly(id: String?, name: String?)

  /// What stands after `-l`: `snapshot.id=[ID],snapshot.name=[NAME]`, or else an id or a name.
  init(_ text: String) throws(VerbFailure) {
    guard text.hasPrefix("snapshot.") else {
      self = .idOrName(text)
      return
    }
    var (id, name): (String?, String?)
    for (key, value) in OptionList.entries(of: text) {
      if value == nil {
        Console.warning("short-form boolean option '\(key)' deprecated\nPlease use \(key)=on instead")
      }
      switch key {
      // A key alone means "on", whatever that may be good for.
      case "snapshot.id": id = value ?? "on"
      case "snapshot.name": name = value ?? "on"
      default:
        throw VerbFailure("Invalid parameter '\(key)'", "Failed in parsing snapshot param '\(text)'")
      }
    }
    self = .exactly(id: id, name: name)
  }

  /// The first snapshot that fits, nil where none does. An id goes before a name.
  func choose(from records: [SnapshotRecord]) -> SnapshotRecord? {
    switch self {
    case .idOrName(let text): records.first(idOrName: text)
    case .exactly(let id, let name): records.first(id: id, name: name)
    }
  }

  /// The snapshot of the top image as a disk of its own.
  func open(in chain: ImageChain) throws(VerbFailure) -> ImageChain {
    try attempt("Failed to load snapshot: ") { () throws(EngineError) in
      guard let keeper = chain.top as? any SnapshotKeeping else {
        throw .unsupported(
          "Block format '\(chain.members[0].formatName)' used by device '' does not support temporarily"
            + " loading internal snapshots")
      }
      guard let record = choose(from: try keeper.snapshots()) else { throw .invalid("Can't find snapshot") }
      return chain.replacing(layerAt: 0, with: try keeper.openSnapshot(record))
    }
  }
}
