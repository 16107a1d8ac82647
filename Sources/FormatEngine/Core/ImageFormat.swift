/// How sure a format is that a file is one of its own, from its first bytes and its name.
/// The highest score wins, as in qemu-img; raw claims everything with the lowest one.
public struct ProbeScore: Comparable, Sendable {
  public var rawValue: Int

  public init(_ rawValue: Int) { self.rawValue = rawValue }

  public static let none = ProbeScore(0)
  public static let fallback = ProbeScore(1)
  public static let certain = ProbeScore(100)

  public static func < (a: ProbeScore, b: ProbeScore) -> Bool { a.rawValue < b.rawValue }
}

/// What a format needs to open one file as a layer.
public struct LayerRequest: Sendable {
  /// The name of the file, for messages and for names that are relative to its folder.
  public var path: String
  public var access: FileAccess
  /// Opens further files that the image names.
  public var references: ReferenceOpener
  /// Opens what can be read of an image that says it is damaged, and leaves it unchanged: for `info`
  /// and `check`, which explain it, and `check -r`, which mends it.
  public var isForInspection: Bool
  /// Ids that change when the image is written to come from here.
  public var identities = IdentitySource.unique
  /// Nobody said what format the file has: its first bytes did.
  public var isProbed = false
  /// The command line puts an image below this one, whatever it names itself.
  public var isOverlay = false
  /// Takes what opening has to tell besides errors, one line each: repairs of an image that was not closed.
  public var note: @Sendable (String) -> Void = { _ in }
  /// Of what opening takes long for: an image that was not closed is checked and mended, its log put into its places.
  public var progress = Progress.none
  /// What the command line says of this layer, such as `encrypt.key-secret`: only options of the format's
  /// `layerOptions`, with values of their kinds.
  public var options: [String: String] = [:]
  /// Files that take the place of those that the image names, by their roles (`ImageFormat.fileRoles`).
  public var files: [String: NamedStore] = [:]
  /// How those are locked, where the command line says more of them.
  var fileLocks: [String: ImageLocks] = [:]
  /// Passphrases that the options name.
  public var secrets = SecretStore()

  public init(path: String, access: FileAccess, references: ReferenceOpener, isForInspection: Bool = false) {
    self.path = path
    self.access = access
    self.references = references
    self.isForInspection = isForInspection
  }
}

extension LayerRequest {
  /// The file that takes the place of the one that the image names for `role`, locked.
  func given(_ role: String, holding content: FileContent) throws(EngineError) -> NamedStore? {
    guard let given = files[role] else { return nil }
    if let file = given.store.hostFile {
      try (fileLocks[role] ?? references.locks).lock(file, holding: content, access: access)
    }
    return given
  }

  /// For formats that can only be read.
  func requireReadOnly() throws(EngineError) {
    guard access == .readOnly else { throw EngineError(.readOnly, "Image is read-only") }
  }
}

/// A format before any file is open.
public protocol ImageFormat: Sendable {
  /// As `-f` and `-O` take it.
  static var name: String { get }
  /// `head`: up to 2048 bytes from the start of the file.
  static func probe(_ head: RawSpan, path: String) -> ProbeScore
  /// What a command line can say of an image that is opened.
  static var layerOptions: OptionSchema { get }
  /// Further files of an image, for which a command line can give others.
  static var fileRoles: [String] { get }
  /// Those of which an image has any number: `extents` stands for `extents.0`, `extents.1`, and so on.
  static var numberedFileRoles: [String] { get }
  /// Whether an image can lie over another one.
  static var supportsBacking: Bool { get }
  /// What the file holds: it says who else may write to it.
  static var fileContent: FileContent { get }
  static func open(_ file: any ByteStore, _ request: LayerRequest) throws(EngineError) -> any ImageLayer
}

extension ImageFormat {
  public static var numberedFileRoles: [String] { [] }
  public static var fileContent: FileContent { .tables }
}

/// What a format needs to make a new image.
public struct CreateRequest: Sendable {
  /// The name of the file, for messages and for names that are relative to its folder.
  public var path: String
  /// Guest bytes.
  public var virtualSize: UInt64
  public var backing: BackingReference?
  public var options: OptionValues
  /// Opens or creates further files that the new image names.
  public var references: ReferenceOpener
  /// Passphrases that the options name.
  public var secrets = SecretStore()
  /// Ids and dates that the new image records come from here.
  public var identities = IdentitySource.unique

  public init(
    path: String, virtualSize: UInt64, backing: BackingReference? = nil, options: OptionValues,
    references: ReferenceOpener
  ) {
    self.path = path
    self.virtualSize = virtualSize
    self.backing = backing
    self.options = options
    self.references = references
  }
}

/// A format that can make new images.
public protocol CreatableFormat: ImageFormat {
  static var createOptions: OptionSchema { get }
  /// Whether opened layers of it are `CompressedWriting`.
  static var supportsCompression: Bool { get }
  /// Whether opened layers of it are `Resizable`.
  static var canGrow: Bool { get }
  /// A file that could not be made into an image is taken away even where it was there before.
  static var removesFailedFiles: Bool { get }
  /// Whether images record ids, by which others know their state.
  static var recordsIdentity: Bool { get }
  /// Whether an image with these options has keys or salts, which are random whatever else is not.
  static func makesKeys(_ options: OptionValues) -> Bool
  /// Guest bytes that nobody has written are what the device holds, where an image is made on one.
  static var keepsOldBytes: Bool { get }
  /// Refuses a format that is given for the file below, before anything is made. `isKnown`: there is such a format.
  static func checkBackingFormat(_ name: String, isKnown: Bool, hasBacking: Bool) throws(EngineError)
  /// Refuses what no image can have, before the file is touched, where a failure of `create` would cost its old content.
  static func checkOptions(_ request: CreateRequest) throws(EngineError)
  /// Writes an empty image over `file`, whose old content is gone.
  static func create(on file: any ByteStore, _ request: CreateRequest) throws(EngineError)
}

extension CreatableFormat {
  public static var removesFailedFiles: Bool { false }
  public static var keepsOldBytes: Bool { false }
  public static var canGrow: Bool { true }
  public static var recordsIdentity: Bool { false }
  public static func makesKeys(_ options: OptionValues) -> Bool { false }
  public static func checkOptions(_ request: CreateRequest) throws(EngineError) {}
  public static func checkBackingFormat(_ name: String, isKnown: Bool, hasBacking: Bool) throws(EngineError) {
    guard isKnown else { throw .invalid("Parameter 'backing-fmt' does not accept value '\(name)'") }
    guard hasBacking else { throw .invalid("Backing format cannot be used without backing file") }
  }
}

/// The formats, in the order in which they are probed. Adding a format adds its row here: explicit, so
/// that no registration can be forgotten.
public enum FormatCatalog {
  public static let all: [any ImageFormat.Type] = [
    Qcow2Format.self,
    QcowFormat.self,
    QEDFormat.self,
    VMDKFormat.self,
    VDIFormat.self,
    VPCFormat.self,
    VHDXFormat.self,
    ParallelsFormat.self,
    LUKSFormat.self,
    DMGFormat.self,
    CLoopFormat.self,
    BochsFormat.self,
    RawFormat.self,
  ]

  /// The format of plain bytes, which every file has.
  public static let plain: any ImageFormat.Type = RawFormat.self

  /// What takes the writes to images that themselves stay as they are.
  static let overlay: any CreatableFormat.Type = Qcow2Format.self

  /// Files by which a folder is known to be an image: the one to open where the folder is named.
  static let bundleDescriptors = ["DiskDescriptor.xml"]

  public static func format(named name: String) -> (any ImageFormat.Type)? {
    all.first { $0.name == name }
  }

  /// The format with the highest score for a file that begins with `head`.
  public static func probe(_ head: RawSpan, path: String) -> any ImageFormat.Type {
    var best: (any ImageFormat.Type, ProbeScore) = (plain, .fallback)
    for format in all {
      let score = format.probe(head, path: path)
      if score > best.1 { best = (format, score) }
    }
    Trace.emit(.formatProbe, "path \"\(path)\" format \(best.0.name)")
    return best.0
  }

  /// Bytes of the head that probing looks at.
  public static let probedByteCount = 2048
}
