/// How to open an image.
public struct OpenOptions: Sendable {
  public enum Backing: Sendable, Equatable {
    /// The whole chain.
    case follow
    /// Only the image itself: what it does not store reads as zeros.
    case ignore
  }

  /// What becomes of a chain of which a file below the top cannot be opened.
  public enum MissingMembers: Sendable {
    /// It is not opened.
    case refused
    /// It ends with the place of that file (`ChainMember.missing`): what the images above do not store cannot be read.
    case kept
  }

  /// As `-f` takes it; nil probes.
  public var format: String?
  public var access: FileAccess = .readOnly
  public var backing: Backing = .follow
  public var missing: MissingMembers = .refused
  public var policy: ReferencePolicy = .anywhere
  /// Of every file that is opened.
  public var cache: CacheMode = .writeback
  /// Who else may change the image meanwhile.
  public var sharing: Sharing = .asFormatAllows
  /// False for commands that only say what an image is: its bytes need make no sense.
  public var readsContent = true
  /// Set by commands that give the disk another size.
  public var changesSize = false
  /// For commands that explain an image: damaged ones open, and no file that the image names is touched.
  public var isForInspection = false
  /// Parents that an image tells by an id only are searched for, also where they are not to be opened.
  public var searchesForParents = false
  /// Files that are opened all the same, since the image consists of them: for `check`, which reads all of it.
  public var checkedRoles: Set<ReferencePolicy.Role> = []
  /// As `LayerRequest.note`.
  public var note: @Sendable (String) -> Void = { _ in }
  /// As `LayerRequest.progress`.
  public var progress = Progress.none
  /// Options of the top layer (`LayerRequest.options`); those of the layer below begin with `backing.`.
  public var layerOptions: [String: String] = [:]
  /// Passphrases that the options name.
  public var secrets = SecretStore()
  /// As `LayerRequest.identities`. Nil: nobody has said where they come from; then each is another.
  public var identities: IdentitySource?

  public init(format: String? = nil, access: FileAccess = .readOnly) {
    self.format = format
    self.access = access
  }
}

/// The one door: what a command names becomes a chain of opened layers.
public enum ImageOpener {
  /// Longer chains are damaged or hostile; the longest in use are incremental backups of some months.
  public static let maximumDepth = 200
  /// Of the tables that the qcow2 images of a chain keep in memory: each has 40 MiB at most, and the files hold each byte of them,
  /// since zeros take no memory. 16 images of 2 TiB that are in use everywhere, in clusters of 4 KiB, can still be a chain.
  static let maximumResidentByteCount = 192 << 20

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
    if options.sharing == .anybody { node["force-share"] = .text("on") }
    for (key, value) in options.layerOptions { node[key] = .text(value) }
    var opener = NodeOpener(options)
    let members = try opener.chain(node, NodeUse(options, access: options.access))
    return ImageChain(members: members, access: options.access)
  }

  /// The format of a file by its first bytes.
  public static func probe(_ file: any ByteStore, path: String) throws(EngineError) -> any ImageFormat.Type {
    let count = Int(min(UInt64(FormatCatalog.probedByteCount), try file.byteCount()))
    let head = try file.bytes(at: 0, count: count)
    return try head.parsed { (span) throws(EngineError) in FormatCatalog.probe(span, path: path) }
  }
}
