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
    // Formats that have none refuse the option.
    let takesPassphrase = name == "luks" || name.hasPrefix("qcow")
    return try ImageChain.over(
      store, format: format, access: access, path: path, isForInspection: isForInspection,
      passphrase: takesPassphrase ? passphrase : nil, files: files,
      references: ReferenceOpener(policy: ReferencePolicy(.nowhere)))
  }
}
