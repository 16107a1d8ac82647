/// How to open an image.
public struct OpenOptions: Sendable {
  public enum Backing: Sendable, Equatable {
    /// The whole chain.
    case follow
    /// Only the image itself: what it does not store reads as zeros.
    case ignore
  }

  /// As `-f` takes it; nil probes.
  public var format: String?
  public var access: FileAccess = .readOnly
  public var backing: Backing = .follow
  public var policy: ReferencePolicy = .anywhere
  /// Of every file that is opened.
  public var cache: CacheMode = .writeback
  /// For commands that explain an image: damaged ones open, and no file that the image names is touched.
  public var isForInspection = false
  /// Parents that an image tells by an id only are searched for, also where they are not to be opened.
  public var searchesForParents = false
  /// Files that are opened all the same, since the image consists of them: for `check`, which reads all of it.
  public var checkedRoles: Set<ReferencePolicy.Role> = []
  /// As `LayerRequest.note`.
  public var note: @Sendable (String) -> Void = { _ in }
  /// Options of the top layer (`LayerRequest.options`); those of the layer below begin with `backing.`.
  public var layerOptions: [String: String] = [:]
  /// Passphrases that the options name.
  public var secrets = SecretStore()
  /// As `LayerRequest.identities`.
  public var identities = IdentitySource.unique

  public init(format: String? = nil, access: FileAccess = .readOnly) {
    self.format = format
    self.access = access
  }
}

/// The one door: what a command names becomes a chain of opened layers.
public enum ImageOpener {
  /// Longer chains are damaged or hostile; the longest in use are incremental backups of some months.
  public static let maximumDepth = 200

  /// Opens the image called `name` (`ImageSpecification`) and, unless told otherwise, all that lies below it.
  public static func open(_ name: String, _ options: OpenOptions = OpenOptions()) throws(EngineError)
    -> ImageChain
  {
    try open(ImageSpecification(name: name), options)
  }

  /// Opens what is specified. A format in `options` goes before the specification's.
  public static func open(_ image: ImageSpecification, _ options: OpenOptions = OpenOptions())
    throws(EngineError) -> ImageChain
  {
    var node = image.node
    if let format = options.format { node["driver"] = .text(format) }
    for (key, value) in options.layerOptions { node[key] = .text(value) }
    var opener = NodeOpener(options)
    return ImageChain(members: try opener.chain(node, access: options.access), access: options.access)
  }

  /// The format of a file by its first bytes.
  public static func probe(_ file: any ByteStore, path: String) throws(EngineError) -> any ImageFormat.Type {
    let count = Int(min(UInt64(FormatCatalog.probedByteCount), try file.byteCount()))
    let head = try file.bytes(at: 0, count: count)
    return try head.parsed { (span) throws(EngineError) in FormatCatalog.probe(span, path: path) }
  }
}
