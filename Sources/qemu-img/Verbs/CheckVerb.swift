import CommandLine
import FormatEngine

/// `check`: whether an image's metadata is sound.
enum CheckVerb {
  static let verb = Verb(
    "check", "looks whether the metadata of an image is sound",
    details: [
      "The exit status is 0 if the image is sound (with -r: now), 1 if the check could not be done, 2 if the image"
        + " is damaged, 3 if clusters are leaked and nothing else is wrong, 63 if the format has no checks."
    ],
    [
      .may(.object), .may(.imageOptions), .may(.quiet), .may(.format), .may(.output),
      .may(
        OptionRule(
          "repair", "r", takes: ArgumentValue("mode", .words(["leaks", "all"])), form: "-r [leaks | all]",
          help:
            "mends what is found: 'leaks' only gives back clusters that nobody uses, 'all' mends every kind of"
            + " error, and may choose wrongly or hide damage that is there already")),
      .may(.sourceCache), .may(.forceShare), .fileName,
    ], run: run)

  static func run(_ arguments: [String]) throws(VerbFailure) -> CInt {
    let parsed = OptionParser.parse(arguments, verb.options)
    var image = ImageArguments()
    var options = OpenOptions()
    options.isForInspection = true
    options.checkedRoles = [.extent]
    var (output, cache) = ("human", "writeback")
    var isQuiet = false
    var mode: RepairMode?
    for option in parsed.options {
      switch option.key {
      case "help": return verb.showHelp()
      case "output": output = option.value
      case "cache": cache = option.value
      case "quiet": isQuiet = true
      case "repair":
        mode = try repairMode(option.value)
      default: try image.take(option)
      }
    }
    guard parsed.operands.count == 1 else { throw .usage("Expecting one image file name") }
    let outputFormat = try CommonArguments.outputFormat(output)
    options.cache = try CommonArguments.cacheMode(cache, what: "source cache")
    let name = parsed.operands[0]
    if mode != nil { options.access = .readWrite }
    let chain = try image.open(name, options)
    guard let layer = chain.top as? any Checkable else {
      throw VerbFailure("This image format does not support checks", exitStatus: 63)
    }
    // Repairs are ended between two of their steps. The tables in memory are of no use then: nothing is closed.
    if mode != nil { Interruption.endsWork() }
    var report = try findings(of: layer, mode)
    if report.failure == nil && report.corruptionsFixed + report.leaksFixed > 0 {
      if !isQuiet && outputFormat == .human { Console.write(repaired(report)) }
      let (corruptionsFixed, leaksFixed) = (report.corruptionsFixed, report.leaksFixed)
      report = try findings(of: layer, nil)
      (report.corruptionsFixed, report.leaksFixed) = (corruptionsFixed, leaksFixed)
    }
    if let failure = report.failure {
      throw VerbFailure((failure.explanation.map { [$0] } ?? []) + ["Check failed: \(failure.reason)"])
    }
    if !isQuiet {
      switch outputFormat {
      case .human: Console.write(text(report))
      case .json:
        Console.write(JSONText.pretty(json(report, name, format: chain.members[0].formatName)) + "\n")
      }
    }
    if report.checkErrors > 0 { throw VerbFailure("Check failed") }
    return report.corruptions > 0 ? 2 : report.leaks > 0 ? 3 : 0
  }

  private static func repairMode(_ text: String) throws(VerbFailure) -> RepairMode {
    switch text {
    case "leaks": return .leaks
    case "all": return .all
    default: throw .usage("Unknown option value for -r (expecting 'leaks' or 'all'): \(text)")
    }
  }

  /// Checks, or with a mode repairs, and says what was found.
  private static func findings(of layer: any Checkable, _ mode: RepairMode?) throws(VerbFailure)
    -> CheckReport
  {
    let line = ProgressLine(isShown: false, step: 1)
    let report = try attempt("Check failed: ") { () throws(EngineError) in
      guard let mode, let repairable = layer as? any Repairable else {
        return try layer.check(progress: line.progress())
      }
      return try repairable.repair(mode, progress: line.progress())
    }
    report.findings.forEach(Console.note)
    return report
  }

  private static func repaired(_ report: CheckReport) -> String {
    """
    The following inconsistencies were found and repaired:

        \(report.leaksFixed) leaked clusters
        \(report.corruptionsFixed) corruptions

    Double checking the fixed image now...

    """
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
      ("leaks", report.leaks), ("corruptions-fixed", report.corruptionsFixed),
      ("leaks-fixed", report.leaksFixed), ("total-clusters", report.totalClusters),
      ("allocated-clusters", report.allocatedClusters), ("fragmented-clusters", report.fragmentedClusters),
      ("compressed-clusters", report.compressedClusters),
    ] where count > 0 {
      fields.append(InfoField(key, .integer(Int64(clamping: count))))
    }
    return .record(fields)
  }
}
