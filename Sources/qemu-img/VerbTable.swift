/// One of qemu-img's commands.
struct Verb: Sendable {
  let name: String
  /// What follows the name in the help.
  let usage: String
  /// The first argument is the name itself. Returns the exit status.
  let run: @Sendable ([String]) throws(VerbFailure) -> CInt
}

enum VerbTable {
  /// By name, as the help lists them.
  static let all = [
    Verb(name: "amend", usage: AmendVerb.usage, run: AmendVerb.run),
    Verb(name: "bench", usage: BenchVerb.usage, run: BenchVerb.run),
    Verb(name: "bitmap", usage: BitmapVerb.usage, run: BitmapVerb.run),
    Verb(name: "check", usage: CheckVerb.usage, run: CheckVerb.run),
    Verb(name: "commit", usage: CommitVerb.usage, run: CommitVerb.run),
    Verb(name: "compare", usage: CompareVerb.usage, run: CompareVerb.run),
    Verb(name: "convert", usage: ConvertVerb.usage, run: ConvertVerb.run),
    Verb(name: "create", usage: CreateVerb.usage, run: CreateVerb.run),
    Verb(name: "dd", usage: DdVerb.usage, run: DdVerb.run),
    Verb(name: "info", usage: InfoVerb.usage, run: InfoVerb.run),
    Verb(name: "map", usage: MapVerb.usage, run: MapVerb.run),
    Verb(name: "measure", usage: MeasureVerb.usage, run: MeasureVerb.run),
    Verb(name: "rebase", usage: RebaseVerb.usage, run: RebaseVerb.run),
    Verb(name: "resize", usage: ResizeVerb.usage, run: ResizeVerb.run),
    Verb(name: "snapshot", usage: SnapshotVerb.usage, run: SnapshotVerb.run),
  ]

  static func verb(named name: String) -> Verb? { all.first { $0.name == name } }
}
