/// What is to lie below an image in place of what lies there now.
public struct NewBacking: Sendable {
  /// Nil: nothing, so all that the image does not store reads as zeros.
  public let disk: ImageChain?
  /// From these depths on both chains are made of the same files; `Int.max` where they share none.
  private let sharedDepths: (old: Int, new: Int)

  /// `overlay`: the image with all that lies below it now.
  public init(_ disk: ImageChain?, under overlay: ImageChain) {
    self.disk = disk
    sharedDepths = Self.sharedDepths(overlay, disk)
  }

  private static func sharedDepths(_ overlay: ImageChain, _ disk: ImageChain?) -> (old: Int, new: Int) {
    guard let disk else { return (.max, .max) }
    var (old, new) = (overlay.members.count, disk.members.count)
    while old > 1, new > 0, isSame(overlay.members[old - 1], disk.members[new - 1]) {
      old -= 1
      new -= 1
    }
    return new == disk.members.count ? (.max, .max) : (old, new)
  }

  private static func isSame(_ a: ChainMember, _ b: ChainMember) -> Bool {
    guard let first = a.file as? FileStore, let second = b.file as? FileStore else { return false }
    return first.identity == second.identity && a.formatName == b.formatName && a.choices == b.choices
  }

  /// What it says of the bytes from `offset` on. Past its end it reads as zeros.
  func locate(at offset: UInt64, limit: UInt64) throws(EngineError) -> LocatedExtent {
    guard let disk, offset < disk.virtualSize else {
      return LocatedExtent(depth: 0, extent: Extent(.below, length: limit))
    }
    return try disk.extent(at: offset, limit: min(limit, disk.virtualSize - offset))
  }

  /// Whether both come from the same place of the same file.
  func isSame(_ old: LocatedExtent, _ new: LocatedExtent) -> Bool {
    if old.readsAsZeros && new.readsAsZeros { return true }
    return old.depth >= sharedDepths.old && new.depth >= sharedDepths.new
  }

  /// The same where the image comes to lie over one of the layers that lie below it now, or over nothing: then
  /// there is nothing to look up.
  func isSame(_ old: LocatedExtent) -> Bool {
    guard disk != nil else { return old.readsAsZeros }
    return sharedDepths.new == 0 && old.depth >= sharedDepths.old
  }
}

extension ChainMember {
  /// What says which disk it is, besides its file and its format: a piece of it, a snapshot, other files to it.
  fileprivate var choices: [String: NodeOptions.Value] {
    guard let node, let format = FormatCatalog.format(named: formatName) else { return [:] }
    let names = format.layerOptions.options.filter(\.changesContent).map(\.name)
    let roles = format.fileRoles + format.numberedFileRoles
    return node.values.filter { (name, _) in
      names.contains(name) || roles.contains { name == $0 || name.hasPrefix($0 + ".") }
    }
  }
}

extension LocatedExtent {
  /// The top layer itself says what is read there.
  var isStoredAtTop: Bool { depth == 0 && extent.source != .below }
}
