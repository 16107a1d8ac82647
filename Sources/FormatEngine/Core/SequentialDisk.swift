/// A disk that is read once, from front to back: what comes out of a pipe. One thread at a time.
public protocol SequentialDisk: AnyObject, Sendable {
  /// As `-f` takes it.
  var formatName: String { get }
  /// Guest bytes, nil where only the end of the pipe tells.
  var virtualSize: UInt64? { get }
  /// Guest bytes that are sure to be there.
  var certainByteCount: UInt64 { get }
  /// Zeros that come next, as far as that is known without reading on; 0 where bytes come, and at the end.
  func zeroRun() throws(EngineError) -> UInt64
  /// Passes over bytes, and says how many: fewer only at the end of the disk.
  func skip(_ count: UInt64) throws(EngineError) -> UInt64
  /// Fills `buffer`, and says how many bytes came: fewer only at the end of the disk.
  func read(into buffer: UnsafeMutableRawBufferPointer) throws(EngineError) -> Int
  /// From now on `proceed` is called while nothing comes, several times a second; what it throws ends the wait.
  func whileWaiting(_ proceed: @escaping @Sendable () throws(EngineError) -> Void)
  /// Called when the whole disk was read: the pipe must end as the format has it.
  func finish() throws(EngineError)
}

/// A format whose images can be read from front to back.
protocol SequentialFormat: ImageFormat {
  /// The options of the request are those of `layerOptions`.
  static func openStream(_ pipe: PipeReader, _ request: LayerRequest) throws(EngineError)
    -> any SequentialDisk
}

/// A format whose images can be written from front to back, without a look back.
protocol StreamableFormat: CreatableFormat {
  /// A new image at the start of `file`, which takes guest bytes in the order of the disk. It is whole when it is closed.
  static func createStream(on file: any ByteStore, _ request: CreateRequest) throws(EngineError)
    -> any WritableLayer
}

extension ImageOpener {
  /// Whether the image is a pipe that the user named.
  public static func isPipe(_ image: ImageSpecification) -> Bool {
    var rest = image.node
    return filePath(&rest).map(HostPipe.isAt) ?? false
  }

  /// The disk that comes out of a pipe. A format in `options` goes before the specification's.
  public static func openStream(_ image: ImageSpecification, _ options: OpenOptions) throws(EngineError)
    -> any SequentialDisk
  {
    var rest = image.node
    guard let path = filePath(&rest) else { throw .invalid("Must specify either driver or file") }
    let given = rest.take("driver")
    let pipe = try PipeReader(path)
    let format: any ImageFormat.Type
    if let name = options.format ?? given {
      guard let named = FormatCatalog.format(named: name) else { throw .invalid("Unknown driver '\(name)'") }
      format = named
    } else {
      format = try pipe.peek(FormatCatalog.probedByteCount).parsed { (span) throws(EngineError) in
        FormatCatalog.probe(span, path: path)
      }
    }
    guard let sequential = format as? any SequentialFormat.Type else {
      throw .unsupported(
        "'\(format.name)' cannot be read from a pipe, because its parts are not read in their order:"
          + " save it as a file first (what can be read so: \(names { $0 is any SequentialFormat.Type }))")
    }
    var request = LayerRequest(
      path: path, access: .readOnly, references: ReferenceOpener(policy: options.policy, isEnabled: false))
    _ = try rest.take(NodeSchemas.everyNode)
    let values = try rest.take(format.layerOptions)
    for option in format.layerOptions.options where values.isGiven(option.name) {
      request.options[option.name] = values.text(option.name)
    }
    if let unknown = rest.values.keys.min() {
      throw .invalid("Block format '\(format.name)' does not support the option '\(unknown)'")
    }
    return try sequential.openStream(pipe, request)
  }

  /// Takes the options of the file out, and gives its path: nil where it is no plain file.
  private static func filePath(_ rest: inout NodeOptions) -> String? {
    var file = rest.takeChild("file")
    let driver = file.take("driver")
    let path = file.take("filename")
    _ = try? file.take(NodeSchemas.everyNode)
    _ = try? file.take(NodeSchemas.file)
    return file.isEmpty && driver ?? "file" == "file" ? path : nil
  }

  /// The formats for which `isOne` holds, for messages.
  static func names(_ isOne: (any ImageFormat.Type) -> Bool) -> String {
    FormatCatalog.all.filter(isOne).map { $0.name }.sorted().joined(separator: ", ")
  }
}
