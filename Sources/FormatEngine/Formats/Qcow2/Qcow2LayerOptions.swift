/// What a command line can say of a qcow2 image that is opened. The sizes of caches count (`Qcow2CacheSizes`); when entries are
/// dropped, checks for overlaps and what happens to freed clusters are hints: they change nothing of what is read or written.
enum Qcow2LayerOptions {
  static let schema = OptionSchema(
    [
      .init("lazy-refcounts", .flag, "Postpone refcount updates"),
      .init("pass-discard-request", .flag, "Pass guest discard requests on"),
      .init("pass-discard-snapshot", .flag, "Discard what snapshots free"),
      .init("pass-discard-other", .flag, "Discard what other changes free"),
      .init("discard-no-unref", .flag, "Keep the clusters that a guest discards"),
      .init("overlap-check", .text, "Which checks for overlaps are made"),
      .init("overlap-check.template", .text, "Which checks for overlaps are made"),
      .init("cache-size", .size, "Bytes of all metadata caches"),
      .init("l2-cache-size", .size, "Bytes of the cache of L2 tables"),
      .init("l2-cache-entry-size", .size, "Bytes of an entry of that cache"),
      .init("refcount-cache-size", .size, "Bytes of the cache of refcount blocks"),
      .init("cache-clean-interval", .number, "Seconds until cache entries are dropped"),
      .init("encrypt.format", .text, "Format of the encryption"),
      .init("encrypt.key-secret", .text, "ID of the secret that opens it", changesContent: true),
    ]
      + [
        "main-header", "active-l1", "active-l2", "refcount-table", "refcount-block", "snapshot-table",
        "inactive-l1", "inactive-l2", "bitmap-directory",
      ].map { .init("overlap-check.\($0)", .flag, "Check for overlaps with it") })

  static func check(_ options: [String: String]) throws(EngineError) {
    for key in ["overlap-check", "overlap-check.template"] {
      guard let text = options[key], !["none", "constant", "cached", "all"].contains(text) else { continue }
      throw .invalid(
        "Unsupported value '\(text)' for qcow2 option 'overlap-check'. Allowed are any of the following:"
          + " none, constant, cached, all")
    }
  }
}
