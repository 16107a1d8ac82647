import FormatEngine
import TestSupport

/// Opens images that lie in memory; no file of the host is opened, whatever they name.
enum FuzzedImage {
  static func open(
    _ store: any ByteStore, format name: String, _ access: FileAccess = .readOnly, path: String = "image",
    isForInspection: Bool = false, passphrase: String? = nil, files: [String: NamedStore] = [:]
  ) throws(EngineError) -> ImageChain {
    guard let format = FormatCatalog.format(named: name) else {
      throw .invalid("There is no format '\(name)'")
    }
    var request = LayerRequest(
      path: path, access: access, references: ReferenceOpener(policy: ReferencePolicy(.nowhere)),
      isForInspection: isForInspection)
    request.files = files
    if let passphrase, name == "luks" || name.hasPrefix("qcow") {
      request.options[keySecretOption(ofFormat: name)] = "key"
      request.secrets.add(Secret(text: passphrase), id: "key")
    }
    let layer = try format.open(store, request)
    let member = ChainMember(layer: layer, file: store, path: path, formatName: name)
    return ImageChain(members: [member], access: access)
  }
}
