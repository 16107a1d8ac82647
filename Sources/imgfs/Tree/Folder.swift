import FormatEngine

/// What a folder holds, found out when it is first asked for, and again where that may have changed.
final class Folder: Sendable {
  struct Listing: Sendable {
    let nodes: [Node]
    private let positions: [[UInt8]: Int]

    init(_ nodes: [Node]) {
      self.nodes = nodes
      positions = Dictionary(
        nodes.enumerated().map { ($1.name, $0) }, uniquingKeysWith: { first, _ in first })
    }

    func node(named name: [UInt8]) -> Node? { positions[name].map { nodes[$0] } }
  }

  /// What users may make and take away in a folder.
  struct Changes: Sendable {
    let makeFolder: @Sendable (_ name: [UInt8]) throws(EngineError) -> Void
    let removeFolder: @Sendable (Node) throws(EngineError) -> Void
  }

  typealias Make = @Sendable (_ previous: Listing?) throws(EngineError) -> [Node]
  /// A number that is another one where the folder may hold something else.
  typealias Version = @Sendable () throws(EngineError) -> UInt64

  /// Finds out what the folder may hold: the number, and what makes just that list.
  typealias Look = @Sendable () throws(EngineError) -> (version: UInt64, make: Make)

  private struct Made {
    var listing: Listing
    var version: UInt64
  }

  private let look: Look
  /// What may take long before a look, while others are shown what was found before.
  private let prepare: (@Sendable () -> Void)?
  /// Whether it holds the same for as long as the tree is mounted.
  let isFixed: Bool
  /// Nil where nothing can be made or taken away.
  let changes: Changes?
  /// Held while the list is made, so that it is made once. Before every lock of the engine.
  private let made = Guarded<Made?>(nil)

  /// A folder that never changes has no `version`.
  init(version: Version? = nil, changes: Changes? = nil, _ make: @escaping Make) {
    isFixed = version == nil
    self.changes = changes
    prepare = nil
    look = { () throws(EngineError) in (try version?() ?? 0, make) }
  }

  /// A folder of which a number and what belongs to it are found out at once, after `prepare`.
  init(prepare: @escaping @Sendable () -> Void, look: @escaping Look) {
    isFixed = false
    changes = nil
    self.prepare = prepare
    self.look = look
  }

  /// The files and folders in it. Where finding out fails, the next call tries again.
  func listing() throws(EngineError) -> Listing {
    prepare?()
    return try made.withLock { (made) throws(EngineError) in
      let (version, make) = try look()
      if let made, made.version == version { return made.listing }
      let listing = Listing(try make(made?.listing))
      made = Made(listing: listing, version: version)
      return listing
    }
  }
}
