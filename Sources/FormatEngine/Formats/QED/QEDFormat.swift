/// QEMU's enhanced disk, an older and simpler cousin of qcow2 (docs/interop/qed_spec.txt).
public enum QEDFormat: ImageFormat {
  public static let name = "qed"
  public static let supportsBacking = true
  public static let fileRoles: [String] = []
  public static let layerOptions = OptionSchema([])

  public static func probe(_ head: RawSpan, path: String) -> ProbeScore {
    guard head.byteCount >= QEDHeader.byteCount,
      let magic = try? head.littleEndian(UInt32.self, at: 0), magic == QEDHeader.magic
    else { return .none }
    return .certain
  }

  public static func open(_ file: any ByteStore, _ request: LayerRequest) throws(EngineError)
    -> any ImageLayer
  {
    var prologue = try QEDPrologue.read(from: file)
    if request.access == .readWrite, !request.isForInspection, prologue.header.features.contains(.needsCheck)
    {
      try repair(prologue, file, request)
      prologue = try QEDPrologue.read(from: file)
    }
    return try QEDLayer(file: file, prologue: prologue, isOverlay: request.isOverlay)
  }

  /// Mends an image whose last writer did not close it.
  private static func repair(_ prologue: QEDPrologue, _ file: any ByteStore, _ request: LayerRequest)
    throws(EngineError)
  {
    var checker = try QEDChecker(prologue, file: file, repairing: .all, progress: request.progress)
    let report = try checker.run()
    report.findings.forEach(request.note)
    guard report.corruptions == 0, report.checkErrors == 0 else {
      throw .corrupt("The image was not closed and cannot be repaired; it can only be opened read-only")
    }
  }
}
