public import FormatEngine

extension Secret {
  public convenience init(text: String) {
    let bytes = Array(text.utf8)
    unsafe self.init(bytes.span.bytes.withUnsafeBytes { unsafe $0 })
  }
}

/// What the format calls the secret that opens an image.
public func keySecretOption(ofFormat name: String) -> String {
  name == "luks" ? "key-secret" : "encrypt.key-secret"
}

extension OpenOptions {
  /// Options for an encrypted image, of the format that they say, else of qcow2.
  public mutating func use(passphrase: String) {
    layerOptions[keySecretOption(ofFormat: format ?? "qcow2")] = "key"
    secrets.add(Secret(text: passphrase), id: "key")
  }
}

extension ImageChain {
  /// Guest bytes as an array.
  public func readBytes(at offset: UInt64, count: Int) throws(EngineError) -> [UInt8] {
    try bytes(at: offset, count: count)
  }

  /// The whole disk; only for small ones.
  public func readAll() throws(EngineError) -> [UInt8] {
    guard virtualSize <= 256 * MiB else { throw EngineError(.tooLarge, "Too large to be held in memory") }
    return try readBytes(at: 0, count: Int(virtualSize))
  }

  public func writeBytes(_ bytes: [UInt8], at offset: UInt64) throws(EngineError) {
    var failure: EngineError?
    unsafe bytes.withUnsafeBytes { raw in
      do throws(EngineError) { unsafe try write(raw, at: offset) } catch { failure = error }
    }
    if let failure { throw failure }
  }

  /// A chain of one layer over a store that is already open: for stores that are no files.
  public static func over(
    _ store: any ByteStore, format: any ImageFormat.Type, access: FileAccess = .readOnly,
    path: String = "memory",
    isForInspection: Bool = false, passphrase: String? = nil, files: [String: NamedStore] = [:],
    references: ReferenceOpener = ReferenceOpener()
  ) throws(EngineError) -> ImageChain {
    var request = LayerRequest(
      path: path, access: access, references: references, isForInspection: isForInspection)
    request.files = files
    if let passphrase {
      request.options[keySecretOption(ofFormat: format.name)] = "key"
      request.secrets.add(Secret(text: passphrase), id: "key")
    }
    let layer = try format.open(store, request)
    let member = ChainMember(layer: layer, file: store, path: path, formatName: format.name)
    return ImageChain(members: [member], access: access)
  }

  /// Every extent of the disk in order, as `extent` gives them. Throws where they do not tile it exactly.
  public func allExtents() throws -> [(start: UInt64, located: LocatedExtent)] {
    var result: [(start: UInt64, located: LocatedExtent)] = []
    var position: UInt64 = 0
    while position < virtualSize {
      let found = try extent(at: position, limit: virtualSize - position)
      guard found.extent.length > 0, found.extent.length <= virtualSize - position else {
        throw TestFailure("Extent at \(position) of a disk of \(virtualSize) is \(found.extent.length) long")
      }
      result.append((position, found))
      position += found.extent.length
    }
    return result
  }
}
