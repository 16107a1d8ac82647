import FormatEngine

/// `check`: whether an image's metadata is sound.
enum CheckVerb {
  static let usage =
    "[--object objectdef] [--image-opts] [-q] [-f fmt] [--output=ofmt] [-r [leaks | all]] [-T src_cache] [-U] filename"

  private static let rules =
    [
      OptionRule("help", "h"), OptionRule("format", "f", takesValue: true),
      OptionRule("repair", "r", takesValue: true), OptionRule("output", takesValue: true),
      OptionRule(letter: "T", takesValue: true), OptionRule(letter: "q"),
    ] + ImageArguments.sharingRules

  static func run(_ arguments: [String]) throws(VerbFailure) -> CInt {
    let parsed = OptionParser.parse(arguments, rules)
    var image = ImageArguments()
    var options = OpenOptions()
    options.isForInspection = true
    var (output, cache) = ("human", "writeback")
    var (isQuiet, repairs) = (false, false)
    for option in parsed.options {
      switch option.key {
      case "help": return Main.showHelp()
      case "output": output = option.value
      case "T": cache = option.value
      case "q": isQuiet = true
      case "repair":
        guard ["leaks", "all"].contains(option.value) else {
          throw .usage("Unknown option value for -r (expecting 'leaks' or 'all'): \(option.value)")
        }
        repairs = true
      default: try image.take(option)
      }
    }
    guard parsed.operands.count == 1 else { throw .usage("Expecting one image file name") }
    let outputFormat = try CommonArguments.outputFormat(output)
    _ = try CommonArguments.cacheMode(cache, what: "source cache")
    if repairs { throw CommonArguments.unsupported("Repairing (-r)") }
    let name = parsed.operands[0]
    let chain = try image.open(name, options)
    guard let layer = chain.top as? any Checkable else {
      throw VerbFailure("This image format does not support checks", exitStatus: 63)
    }
    let report = try attempt("Check failed: ") { () throws(EngineError) in try layer.check(progress: .none) }
    report.findings.forEach(Console.note)
    if !isQuiet {
      switch outputFormat {
      case .human: Console.write(text(report))
      case .json:
        Console.write(JSONText.pretty(json(report, name, format: chain.members[0].formatName)) + "\n")
      }
    }
    return report.checkErrors > 0 ? 1 : report.corruptions > 0 ? 2 : report.leaks > 0 ? 3 : 0
  }

  private static func text(_ report: CheckReport) -> String {
    var text = ""
    if report.corruptions == 0 && report.leaks == 0 && report.checkErrors == 0 {
      text += "No errors were found on the image.\n"
    }
    if report.corruptions > 0 {
      text +=
        "\n\(report.corruptions) errors were found on the image.\n"
        + "Data may be corrupted, or further writes to the image may corrupt it.\n"
    }
    if report.leaks > 0 {
      text +=
        "\n\(report.leaks) leaked clusters were found on the image.\n"
        + "This means waste of disk space, but no harm to data.\n"
    }
    if report.checkErrors > 0 {
      text += "\n\(report.checkErrors) internal errors have occurred during the check.\n"
    }
    if report.totalClusters > 0 && report.allocatedClusters > 0 {
      func percent(_ part: UInt64, of whole: UInt64) -> String {
        NumberText.fixed2(Double(part) * 100 / Double(whole)) + "%"
      }
      let allocated = report.allocatedClusters
      text +=
        "\(allocated)/\(report.totalClusters) = \(percent(allocated, of: report.totalClusters)) allocated,"
        + " \(percent(report.fragmentedClusters, of: allocated)) fragmented,"
        + " \(percent(report.compressedClusters, of: allocated)) compressed clusters\n"
    }
    if let end = report.imageEndOffset, end > 0 { text += "Image end offset: \(end)\n" }
    return text
  }

  /// Counts of 0 are left out, all but that of check errors.
  private static func json(_ report: CheckReport, _ name: String, format: String) -> InfoValue {
    var fields = [InfoField("filename", .text(name)), InfoField("format", .text(format))]
    fields.append(InfoField("check-errors", .integer(Int64(clamping: report.checkErrors))))
    for (key, count) in [
      ("image-end-offset", report.imageEndOffset ?? 0), ("corruptions", report.corruptions),
      ("leaks", report.leaks), ("total-clusters", report.totalClusters),
      ("allocated-clusters", report.allocatedClusters), ("fragmented-clusters", report.fragmentedClusters),
      ("compressed-clusters", report.compressedClusters),
    ] where count > 0 {
      fields.append(InfoField(key, .integer(Int64(clamping: count))))
    }
    return .record(fields)
  }
}
