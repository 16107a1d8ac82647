/// How a node is used by what it belongs to: this holds where the node says nothing else.
struct NodeUse {
  var access: FileAccess
  var cache: CacheMode
  var locks: ImageLocks
  /// Its format is what was found when it was opened before.
  var wasProbed = false
  /// What becomes of a chain in which a file is missing.
  let missing: OpenOptions.MissingMembers
  /// No file of the chain may be missing, however it is opened.
  private(set) var isWhole = false

  init(_ options: OpenOptions, access: FileAccess) {
    self.access = access
    cache = options.cache
    locks = ImageLocks(options, access: access)
    missing = options.missing
  }

  /// With the options that nodes have whatever their driver is.
  func changed(by common: OptionValues) throws(EngineError) -> NodeUse {
    var use = self
    use.cache = cache.changed(by: common)
    use.locks = try locks.changed(by: common, access: access)
    return use
  }

  /// What lies below `member`, which is used like this.
  func forBacking(of member: ChainMember) -> NodeUse {
    var use = self
    use.access = .readOnly
    use.wasProbed = false
    use.locks = locks.forBacking(of: member)
    return use
  }

  /// A disk that is the file of another image. All of its chain has to be there: nobody would see which file of it is
  /// missing.
  var forDisk: NodeUse {
    var use = self
    use.wasProbed = false
    use.locks = locks.forInner(access: access)
    use.isWhole = true
    return use
  }
}
