/// Options that nodes have whatever their driver is, and those of the drivers that are no formats.
enum NodeSchemas {
  /// `node-name` and hints for discards change nothing of what a command does.
  static let everyNode = OptionSchema([
    .init("read-only", .flag, "Never write to it"),
    .init("auto-read-only", .flag, "Open it for reading only where it cannot be written"),
    .init("force-share", .flag, "Open it whoever else is using it"),
    .init("cache.direct", .flag, "Without the host's cache"),
    .init("cache.no-flush", .flag, "Never wait until it is on disk"),
    .init("node-name", .text, "What others would call it"),
    .init("discard", .text, "What a discard does"),
    .init("detect-zeroes", .text, "What writing zeros does"),
  ])

  static let file = OptionSchema([
    .init("filename", .text, "Path"),
    .init("aio", .text, "How requests are made"),
    .init("locking", .text, "Whether others are kept out"),
    .init("drop-cache", .flag, "Drop the host's cache"),
    .init("x-check-cache-dropped", .flag, "Check that"),
  ])

  static let null = OptionSchema([
    .init("size", .size, "Bytes"),
    .init("read-zeroes", .flag, "Reads give zeros"),
    .init("latency-ns", .number, "Time of a request"),
  ])

  /// Beside the rules (`NodeOptions.takeDebugRules`). Sizes of requests are hints.
  static let debug = OptionSchema(
    [.init("config", .text, "A file with rules")]
      + ["align", "max-transfer", "opt-write-zero", "max-write-zero", "opt-discard", "max-discard"].map {
        .init($0, .size, "Size of requests")
      })

  /// Protocols: drivers that are no formats.
  static let fileDrivers: Set<String> = ["file", "host_device"]
  static let debugDriver = "blkdebug"
  static let nullDrivers: Set<String> = ["null-co", "null-aio"]

  /// Refuses values of options that are one of a few words.
  static func checkWords(_ values: OptionValues) throws(EngineError) {
    for (option, words) in [
      ("detect-zeroes", ["off", "on", "unmap"]), ("aio", ["threads", "native", "io_uring"]),
      ("locking", ["on", "off", "auto"]),
    ] {
      guard let text = values.text(option), !words.contains(text) else { continue }
      throw .invalid("invalid parameter value: \(text)")
    }
    if let text = values.text("discard"), !["ignore", "off", "unmap", "on"].contains(text) {
      throw .invalid("Invalid discard option")
    }
  }
}

extension CacheMode {
  /// As a node says of itself (`NodeSchemas.everyNode`), and where it says nothing as it is around it.
  func changed(by node: OptionValues) -> CacheMode {
    var mode = self
    if let isDirect = node.flag("cache.direct") { mode.isDirect = isDirect }
    if let skipsFlushes = node.flag("cache.no-flush") { mode.skipsFlushes = skipsFlushes }
    return mode
  }
}
