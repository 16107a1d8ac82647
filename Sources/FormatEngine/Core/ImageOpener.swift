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
  public var flushing: FlushMode = .durable
  /// For commands that explain an image: damaged ones open, and no file that the image names is touched.
  public var isForInspection = false
  /// Options of the top layer (`LayerRequest.options`); those of the layer below begin with `backing.`.
  public var layerOptions: [String: String] = [:]
  /// Passphrases that the options name.
  public var secrets = SecretStore()

  public init(format: String? = nil, access: FileAccess = .readOnly) {
    self.format = format
    self.access = access
  }
}

/// The one door: a name becomes a chain of opened layers.
public enum ImageOpener {
  /// Longer chains are damaged or hostile; the longest in use are incremental backups of some months.
  public static let maximumDepth = 200

  /// Opens the image at `path` and, unless told otherwise, all that lies below it.
  public static func open(_ path: String, _ options: OpenOptions = OpenOptions()) throws(EngineError)
    -> ImageChain
  {
    let plain = try ImageName.plainPath(path)
    let file = try FileStore.open(plain, access: options.access, flushing: options.flushing)
    var members = [
      try member(file, path: plain, format: options.format, options.access, options, depth: 0)
    ]
    var seen: Set<HostFiles.Identity> = [file.identity]
    while options.backing == .follow, let last = members.last, let backing = last.layer.backing {
      do throws(EngineError) {
        members.append(try open(backing, of: last, options, &seen, depth: members.count))
      } catch {
        throw error.whileTrying("Could not open backing file")
      }
    }
    return ImageChain(members: members, access: options.access)
  }

  /// The format of a file by its first bytes.
  public static func probe(_ file: any ByteStore, path: String) throws(EngineError) -> any ImageFormat.Type {
    let count = Int(min(UInt64(FormatCatalog.probedByteCount), try file.byteCount()))
    let head = try file.bytes(at: 0, count: count)
    return try head.parsed { (span) throws(EngineError) in FormatCatalog.probe(span, path: path) }
  }

  private static func open(
    _ backing: BackingReference, of parent: ChainMember, _ options: OpenOptions,
    _ seen: inout Set<HostFiles.Identity>, depth: Int
  ) throws(EngineError) -> ChainMember {
    let path = try options.policy.resolve(backing.name, for: .backingFile, namedBy: parent.path)
    guard depth < maximumDepth else {
      throw EngineError(
        .tooLarge, "The chain of backing files has more than \(maximumDepth) members", path: path)
    }
    let file = try FileStore.open(path, access: .readOnly, flushing: options.flushing)
    guard seen.insert(file.identity).inserted else {
      throw .corrupt("The chain of backing files is a loop: it comes back to '\(path)'")
    }
    return try member(file, path: path, format: backing.format, .readOnly, options, depth: depth)
  }

  private static func member(
    _ file: FileStore, path: String, format name: String?, _ access: FileAccess, _ options: OpenOptions,
    depth: Int
  ) throws(EngineError) -> ChainMember {
    let format: any ImageFormat.Type
    if let name {
      guard let named = FormatCatalog.format(named: name) else { throw .invalid("Unknown driver '\(name)'") }
      format = named
    } else {
      format = try probe(file, path: path)
    }
    let references = ReferenceOpener(
      policy: options.policy, flushing: options.flushing, isEnabled: !options.isForInspection)
    var request = LayerRequest(
      path: path, access: access, references: references, isForInspection: options.isForInspection)
    request.options = layerOptions(options.layerOptions, depth: depth)
    request.secrets = options.secrets
    let layer = try format.open(file, request)
    return ChainMember(layer: layer, file: file, path: path, formatName: format.name)
  }

  /// The options of the layer at `depth`, without the `backing.` that they begin with once for each layer above.
  private static func layerOptions(_ options: [String: String], depth: Int) -> [String: String] {
    var result = options
    for _ in 0..<depth {
      result = Dictionary(
        uniqueKeysWithValues: result.compactMap { key, value in
          key.hasPrefix("backing.") ? (String(key.dropFirst("backing.".count)), value) : nil
        })
    }
    return result.filter { !$0.key.hasPrefix("backing.") }
  }
}
