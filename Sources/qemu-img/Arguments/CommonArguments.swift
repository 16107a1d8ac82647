import FormatEngine

/// Readings of option values that several commands share, with qemu-img's words where they are wrong.
enum CommonArguments {
  enum OutputFormat { case human, json }

  static func outputFormat(_ text: String) throws(VerbFailure) -> OutputFormat {
    switch text {
    case "human": return .human
    case "json": return .json
    default: throw VerbFailure("--output must be used with human or json as argument.")
    }
  }

  /// A size or an offset of at most 2^63 - 1, or in a narrower range.
  static func size(
    _ text: String, what: String, in range: ClosedRange<UInt64> = 0...maximumFileOffset
  ) throws(VerbFailure) -> UInt64 {
    do throws(SizeText.Failure) {
      let size = try SizeText.parse(text)
      if range.contains(size) { return size }
    } catch {
      guard error == .outOfRange else {
        throw VerbFailure(
          "Invalid \(what) specified. You may use k, M, G, T, P or E suffixes for",
          "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.")
      }
    }
    throw VerbFailure(
      "Invalid \(what) specified. Must be between \(range.lowerBound) and \(range.upperBound).")
  }

  /// Bytes a second; nil for 0, which means no limit.
  static func rateLimit(_ text: String) throws(VerbFailure) -> UInt64? {
    let limit = try size(text, what: "rate limit")
    return limit == 0 ? nil : limit
  }

  static func cacheMode(_ text: String, what: String, exitStatus: CInt = 1) throws(VerbFailure) -> CacheMode {
    guard let mode = CacheMode.named(text) else {
      throw VerbFailure("Invalid \(what) option: \(text)", exitStatus: exitStatus)
    }
    return mode
  }
}
