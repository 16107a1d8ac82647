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
    var prologue = try Qcow2Prologue.read(from: file, toleratingDamage: request.isForInspection)
    if request.access == .readWrite && !request.isForInspection {
      guard !prologue.header.incompatibleFeatures.contains(.corrupt) else {
        throw .corrupt("qcow2: Image is corrupt; cannot be opened read/write")
      }
      if prologue.header.incompatibleFeatures.contains(.dirty) {
        try repair(prologue, file, request)
        prologue = try Qcow2Prologue.read(from: file)
      }
    }
    let encryption = try Qcow2Encryption.open(prologue, file, request)
    let dataFile = try openDataFile(prologue, request)
    return try Qcow2Layer(
      file: file, prologue: prologue, dataFile: dataFile, encryption: encryption, request: request)
  }

  public static let fileRoles = ["data-file"]
  public static var layerOptions: OptionSchema { Qcow2LayerOptions.schema }

  /// Mends an image whose last writer did not close it: its counts may have stayed behind.
  private static func repair(
    _ prologue: Qcow2Prologue, _ file: any ByteStore, _ request: LayerRequest
  ) throws(EngineError) {
    var repairer = try Qcow2Repairer(prologue, file: file, mode: .all, progress: request.progress)
    let report = try repairer.run()
    report.findings.forEach(request.note)
    guard report.failure == nil, report.checkErrors == 0, report.corruptions == 0 else {
      throw .corrupt("qcow2: Could not repair dirty image: \(report.failure?.reason ?? "Input/output error")")
    }
  }

  private static func openDataFile(_ prologue: Qcow2Prologue, _ request: LayerRequest) throws(EngineError)
    -> NamedStore?
  {
    guard prologue.header.incompatibleFeatures.contains(.externalDataFile) else {
      guard request.files["data-file"] == nil else {
        throw .invalid("'data-file' can only be set for images with an external data file")
      }
      return nil
    }
    if let given = try request.given("data-file", holding: .guestBytes) { return given }
    guard request.references.isEnabled else { return nil }
    guard let name = prologue.extensions.text(Qcow2HeaderExtensions.Kind.dataFile) else {
      throw .invalid("'data-file' is required for this image")
    }
    do throws(EngineError) {
      let store = try request.references.open(
        name, for: .dataFile, namedBy: request.path, access: request.access, holding: .guestBytes)
      return NamedStore(role: "data-file", path: store.path, store: store)
    } catch {
      throw error.code == .locked ? error : error.whileTrying("Could not open data file")
    }
  }
}
