/// QEMU's own format, versions 2 and 3 (docs/interop/qcow2.txt).
public enum Qcow2Format: ImageFormat {
  public static let name = "qcow2"

  public static func probe(_ head: RawSpan, path: String) -> ProbeScore {
    guard let magic = try? head.bigEndian(UInt32.self, at: 0), magic == Qcow2Header.magic,
      let version = try? head.bigEndian(UInt32.self, at: 4), version >= 2
    else { return .none }
    return .certain
  }

  public static func open(_ file: any ByteStore, _ request: LayerRequest) throws(EngineError)
    -> any ImageLayer
  {
    try Qcow2LayerOptions.check(request.options)
    let prologue = try Qcow2Prologue.read(from: file)
    if request.access == .readWrite {
      guard !prologue.header.incompatibleFeatures.contains(.corrupt) else {
        throw .corrupt("qcow2: Image is corrupt; cannot be opened read/write")
      }
      guard !prologue.header.incompatibleFeatures.contains(.dirty) else {
        throw .unsupported(
          "qcow2: Image was not closed properly; it must be repaired before it is written to")
      }
    }
    let encryption = try Qcow2Encryption.open(prologue, file, request)
    let dataFile = try openDataFile(prologue, request)
    return try Qcow2Layer(
      file: file, prologue: prologue, dataFile: dataFile, encryption: encryption, request: request)
  }

  public static let fileRoles = ["data-file"]
  public static var layerOptions: OptionSchema { Qcow2LayerOptions.schema }

  private static func openDataFile(_ prologue: Qcow2Prologue, _ request: LayerRequest) throws(EngineError)
    -> NamedStore?
  {
    guard prologue.header.incompatibleFeatures.contains(.externalDataFile) else {
      guard request.files["data-file"] == nil else {
        throw .invalid("'data-file' can only be set for images with an external data file")
      }
      return nil
    }
    if let given = request.files["data-file"] { return given }
    guard request.references.isEnabled else { return nil }
    guard let name = prologue.extensions.text(Qcow2HeaderExtensions.Kind.dataFile) else {
      throw .invalid("'data-file' is required for this image")
    }
    do throws(EngineError) {
      let store = try request.references.open(
        name, for: .dataFile, namedBy: request.path, access: request.access)
      return NamedStore(role: "data-file", path: store.path, store: store)
    } catch {
      throw error.whileTrying("Could not open data file")
    }
  }
}
