/// How a node is used by what it belongs to: this holds where the node says nothing else.
struct NodeUse {
  var access: FileAccess
  var cache: CacheMode
  var locks: ImageLocks
  /// Its format is what was found when it was opened before.
  var wasProbed = false

  init(_ options: OpenOptions, access: FileAccess) {
    self.access = access
    cache = options.cache
    locks = ImageLocks(options, access: access)
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
}
