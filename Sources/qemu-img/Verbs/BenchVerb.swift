import CommandLine
import FormatEngine

/// `bench`: how fast an image is read or written.
enum BenchVerb {
  static let verb = Verb(
    "bench", "measures how fast an image is read or written",
    details: [
      "Requests of one size are carried out, several at a time, each so many bytes behind the one before; past the end of"
        + " the disk they go on from its start. Without -w they are reads.",
      "With --flush-interval a flush comes wherever the number of requests that are not begun yet is a multiple of it,"
        + " when all that were begun are done.",
      "'io_uring' and 'native' hand to the kernel what lies in one place of a file as it is. All else - what is packed or"
        + " encrypted, or needs room first - is done by threads. 'native' wants -t none or -t directsync.",
    ],
    [
      .may(
        OptionRule(
          "count", "c", takes: ArgumentValue("count"), help: "says how many requests there are (75000)")),
      .may(
        OptionRule(
          "depth", "d", takes: ArgumentValue("depth"), help: "says how many are at work at a time (64)")),
      .may(.format),
      .may(
        OptionRule(
          "flush-interval", takes: ArgumentValue("flush_interval"),
          help: "flushes what was written after so many requests, at least as many as are at work at a time")),
      .may(
        OptionRule(
          "aio", "i", takes: ArgumentValue("aio", .words(["threads", "native", "io_uring"])),
          help:
            "says who carries out the requests: 'threads' that wait for them, or the kernel, by 'native' AIO or"
            + " 'io_uring'")),
      .may(OptionRule("native", "n", help: "means -i native")),
      .may(OptionRule("no-drain", help: "flushes while requests are at work")),
      .may(
        OptionRule(
          "offset", "o", takes: ArgumentValue("offset"), help: "says where the first request lies (0)")),
      .may(
        OptionRule(
          "pattern", takes: ArgumentValue("pattern"), help: "says which byte is written over and over (0)")),
      .may(OptionRule("quiet", "q", help: "is taken, but what is measured is printed all the same")),
      .may(
        OptionRule(
          "buffer-size", "s", takes: ArgumentValue("buffer_size"), help: "says how long a request is (4k)")),
      .may(
        OptionRule(
          "step-size", "S", takes: ArgumentValue("step_size"),
          help: "says how far a request is from the one before: by itself, as far as it is long")),
      .may(.cache),
      .may(OptionRule("write", "w", help: "writes, and destroys what the image holds")),
      .may(.forceShare), .may(.imageOptions), .may(.object), .fileName,
    ], run: run)

  /// The command line, read.
  private struct Arguments {
    var image = ImageArguments()
    var options = BenchmarkOptions()
    var (writes, drains) = (false, true)
    var pattern: UInt8 = 0
    /// 0: none.
    var flushInterval = 0
    /// 0: as many bytes as a request has.
    var step = 0
    var cache = CacheMode.writeback

    mutating func take(_ option: GivenOption) throws(VerbFailure) {
      let counts = 0...UInt64(CInt.max)
      switch option.key {
      case "count": options.requestCount = try count(option.value, "request count")
      case "depth": options.depth = try count(option.value, "queue depth", from: 1)
      case "flush-interval": flushInterval = try count(option.value, "flush interval")
      case "aio": try takeMethod(option.value)
      case "native": options.transfer = .native
      case "no-drain": drains = false
      case "offset": options.offset = try CommonArguments.size(option.value, what: "offset")
      case "pattern": pattern = UInt8(clamping: try count(option.value, "pattern byte", upTo: 0xff))
      case "quiet": break  // What is measured is printed all the same.
      case "buffer-size":
        options.byteCount = Int(
          clamping: try CommonArguments.size(option.value, what: "buffer size", in: counts))
      case "step-size":
        step = Int(clamping: try CommonArguments.size(option.value, what: "step_size", in: counts))
      case "cache":
        guard let mode = CacheMode.named(option.value) else { throw VerbFailure("Invalid cache mode") }
        cache = mode
      case "write": writes = true
      default: try image.take(option)
      }
    }

    private func count(
      _ text: String, _ what: String, from least: UInt64 = 0, upTo most: UInt64 = UInt64(CInt.max)
    ) throws(VerbFailure) -> Int {
      guard let number = SizeText.parseInteger(text), (least...most).contains(number) else {
        throw VerbFailure("Invalid \(what) specified")
      }
      return Int(number)
    }

    /// As in qemu-img `native` stays, once asked for, and goes before `io_uring`.
    private mutating func takeMethod(_ text: String) throws(VerbFailure) {
      switch text {
      case "threads": break
      case "native": options.transfer = .native
      case "io_uring": if options.transfer == .threads { options.transfer = .ring }
      default: throw VerbFailure("Invalid aio option: \(text)")
      }
    }

    /// What the options mean together.
    mutating func finish() throws(VerbFailure) {
      if flushInterval > 0 && !writes {
        throw VerbFailure("--flush-interval is only available in write tests")
      }
      if flushInterval > 0 && flushInterval < options.depth {
        throw VerbFailure("Flush interval can't be smaller than depth")
      }
      options.kind = writes ? .write(pattern: pattern) : .read
      options.step = UInt64(step == 0 ? options.byteCount : step)
      if flushInterval > 0 { options.flushing = .init(interval: flushInterval, drains: drains) }
    }
  }

  static func run(_ words: [String]) throws(VerbFailure) -> CInt {
    let parsed = OptionParser.parse(words, verb.options)
    var arguments = Arguments()
    for option in parsed.options {
      if option.key == "help" { return verb.showHelp() }
      try arguments.take(option)
    }
    guard parsed.operands.count == 1 else { throw .usage("Expecting one image file name") }
    try arguments.finish()
    let chain = try open(parsed.operands[0], arguments)
    let options = arguments.options
    Console.write(announcement(options))
    Console.flush()
    do throws(EngineError) {
      let seconds = try Benchmark.run(on: chain, options)
      Console.write("Run completed in \(NumberText.fixed3(seconds)) seconds.\n")
    } catch {
      // What was written before stays a sound image.
      try? chain.close()
      throw VerbFailure("Failed request: \(error.systemText ?? EngineError.ioErrorText)")
    }
    try attempt("Could not flush '\(parsed.operands[0])': ") { () throws(EngineError) in try chain.close() }
    return 0
  }

  private static func open(_ name: String, _ arguments: Arguments) throws(VerbFailure) -> ImageChain {
    var opening = OpenOptions(access: arguments.writes ? .readWrite : .readOnly)
    opening.cache = arguments.cache
    let chain = try arguments.image.open(name, opening)
    try attempt("Could not open '\(name)': ") { () throws(EngineError) in
      try Benchmark.check(chain, arguments.options)
    }
    return chain
  }

  private static func announcement(_ options: BenchmarkOptions) -> String {
    let kind = options.kind == .read ? "read" : "write"
    var text =
      "Sending \(options.requestCount) \(kind) requests, \(options.byteCount) bytes each, \(options.depth) in parallel"
      + " (starting at offset \(options.offset), step size \(options.step))\n"
    if let flushing = options.flushing { text += "Sending flush every \(flushing.interval) requests\n" }
    return text
  }
}
