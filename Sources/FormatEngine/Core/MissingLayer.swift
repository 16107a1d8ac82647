/// A file that a chain wants and that cannot be opened.
public struct MissingImage: Equatable, Sendable {
  /// As the image above records it.
  public let name: String
  /// Where it was looked for; nil where the name leads nowhere.
  public let path: String?
  /// Why it cannot be opened. The message says which file is wanted.
  public let reason: EngineError

  /// Nil for failures that say nothing of the file, for a file that somebody else is writing to - an image over it must
  /// not be read either - and for one that only wants its passphrase.
  init?(_ error: EngineError, name: String, path: String?) {
    switch error.code {
    case .locked, .cancelled, .missingKey, .wrongKey: return nil
    default: if error.isShortage { return nil }
    }
    self.name = name
    self.path = path
    let tellsFile = error.message.contains(name) || path.map { error.message.contains($0) } == true
    reason = error.whileTrying(
      "Could not open backing file" + (tellsFile ? "" : " '\(path ?? name)'"))
  }

  /// A file that was open and cannot be opened any more.
  init(_ member: ChainMember, _ reason: EngineError) {
    (name, path, self.reason) = (member.name, member.path, reason)
  }

  /// What reads of it throw: its place in the chain exists, so it is no matter of a name or of rights any more.
  var readFailure: EngineError {
    var error = EngineError.unreadable(reason.message, path: path)
    error.additions = reason.additions
    return error
  }
}

/// Stands at the end of a chain for a file that cannot be opened. Whatever would be read of it is an error.
final class MissingLayer: ImageLayer {
  let image: MissingImage
  private let above: any ImageLayer
  /// As the layer above has it: no part of that is taken for bytes that were never there.
  var virtualSize: UInt64 { above.virtualSize }
  let clusterSize: UInt64 = 0
  let backing: BackingReference? = nil
  let storesHoles = false
  let cipher: LayerCipher? = nil
  private let nothing = NullStore(byteCount: 0)

  init(_ image: MissingImage, below above: any ImageLayer) {
    self.image = image
    self.above = above
  }

  func store(_ index: UInt16) -> any ByteStore { nothing }

  func extent(at offset: UInt64, limit: UInt64) throws(EngineError) -> Extent {
    throw image.readFailure
  }

  func readCompressed(_ extent: Extent, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(EngineError)
  {
    throw image.readFailure
  }
}

extension ChainMember {
  /// The place of a file that is missing below `above`.
  init(_ missing: MissingImage, below above: ChainMember) {
    self.init(missing, below: above.layer, formatName: above.layer.backing?.format ?? "")
  }

  private init(_ missing: MissingImage, below above: any ImageLayer, formatName: String) {
    let layer = MissingLayer(missing, below: above)
    self.init(
      layer: layer, file: layer.store(0), path: missing.path ?? missing.name, formatName: formatName)
  }

  /// Itself and the members below it: what is missing there reaches as far as this one's layer.
  func over(_ below: ArraySlice<ChainMember>) -> [ChainMember] {
    guard let next = below.first, let missing = next.missing else { return [self] + below }
    return [self, ChainMember(missing, below: layer, formatName: next.formatName)] + below.dropFirst()
  }

  /// What is wanted here and cannot be opened; nil for a member that is open.
  public var missing: MissingImage? { (layer as? MissingLayer)?.image }
  public var isMissing: Bool { layer is MissingLayer }
}

extension BackingReference {
  /// Where the file is looked for, whatever may be opened; nil where the name leads nowhere.
  func wantedPath(namedBy path: String) -> String? {
    if let candidates {
      let joined = candidates.map { ImageName.join($0, toFolderOf: path) }
      return joined.first { !HostFiles.isMissing($0) } ?? joined.first
    }
    if ImageName.jsonText(of: name) != nil { return (try? ImageSpecification(name: name))?.filePath }
    return (try? ImageName.plainPath(name, allowingFilePrefix: true)).map {
      ImageName.join($0, toFolderOf: path)
    }
  }
}
