/// Bytes of tables that an opened image holds at once, whatever its size.
struct Qcow2CacheSizes {
  /// 16 MiB of L2 tables map 128 GiB at 64 KiB clusters.
  var l2 = 16 * MiB
  /// 4 MiB of 16-bit counts cover 128 GiB of file at 64 KiB clusters.
  var refcounts = 4 * MiB

  static let usual = Qcow2CacheSizes()

  init() {}

  /// What the options of the layer say; one that is not given gets the rest of `cache-size`. Throws where they contradict
  /// each other, in the peer's words and order.
  init(_ options: [String: String], clusterSize: UInt64) throws(EngineError) {
    func size(_ name: String) throws(EngineError) -> UInt64? {
      guard let text = options[name] else { return nil }
      return try SizeText.parseOption(text, name: name)
    }
    let (l2, refcounts) = (try size("l2-cache-size"), try size("refcount-cache-size"))
    if let all = try size("cache-size") {
      try share(all, l2, refcounts)
    } else {
      self.l2 = l2 ?? self.l2
      self.refcounts = refcounts ?? self.refcounts
    }
    // What is read at once is our own affair.
    let entry = try size("l2-cache-entry-size") ?? clusterSize
    guard entry.nonzeroBitCount == 1, (512...clusterSize).contains(entry) else {
      throw .invalid(
        "L2 cache entry size must be a power of two between 512 and the cluster size (\(clusterSize))")
    }
  }

  private mutating func share(_ all: UInt64, _ l2: UInt64?, _ refcounts: UInt64?) throws(EngineError) {
    if l2 != nil && refcounts != nil {
      throw .invalid("cache-size, l2-cache-size and refcount-cache-size may not be set at the same time")
    }
    if let l2, l2 > all { throw .invalid("l2-cache-size may not exceed cache-size") }
    if let refcounts, refcounts > all { throw .invalid("refcount-cache-size may not exceed cache-size") }
    // Writing goes through the counts from front to back: a few blocks of them are enough.
    self.refcounts = refcounts ?? l2.map { all - $0 } ?? min(all / 4, self.refcounts)
    self.l2 = l2 ?? all - self.refcounts
  }
}
